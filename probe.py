import os, sys
import triton, triton.language as tl
Z = tl.constexpr(0)
@triton.jit
def helper(x, size, DIMS: tl.constexpr):
    out = ()
    for i in tl.static_range(DIMS):
        n = size[i]
        out = out + (x * n.to(x.dtype) + i,)
    return out
@triton.jit
def inner(acc, g, U: tl.constexpr):
    new = ()
    for c in tl.static_range(U):
        new = new + (acc[c] + g * c,)
    return new
@triton.jit(do_not_specialize=["W", "H", "N", "big"])
def k(p, q, flags, W, H, N, big, DIMS: tl.constexpr, U: tl.constexpr, ACC: tl.constexpr):
    n = tl.program_id(0)
    if tl.load(flags + n) == 0:
        return
    o = tl.arange(0, 32)
    x = tl.load(p + o + n.to(tl.int64) * big).to(ACC)
    pos = helper(x, (W, H, W), DIMS)
    s = pos[0]
    for i in tl.static_range(1, DIMS):
        s = s + pos[i]
    acc = ()
    for c in tl.static_range(U):
        acc = acc + (tl.zeros([32], ACC),)
    for j in range(0, N):
        g = tl.load(p + j).to(ACC)
        acc = inner(acc, g + s, U)
    for c in tl.static_range(U):
        tl.store(q + c * 32 + o, acc[c])
    if DIMS == 2 and ACC == tl.float32:
        tl.store(q, tl.div_rn(H.to(ACC), W.to(ACC)))
if os.environ.get("TRITON_INTERPRET") == "1":
    import torch
    q = torch.zeros(96)
    k[(1,)](torch.ones(64), q, torch.ones(1, dtype=torch.int32), 1, 3, 2, 5, DIMS=2, U=3, ACC=tl.float32)
    print(q[:3], q[33], q[65])
else:
    from triton.compiler import ASTSource
    from triton.backends.compiler import GPUTarget
    sig = {"p": "*fp32", "q": "*fp32", "flags": "*i32", "W": "i32", "H": "i32", "N": "i32", "big": "i64", "DIMS": "constexpr", "U": "constexpr", "ACC": "constexpr"}
    src = ASTSource(fn=k, signature=sig, constexprs={("DIMS"): 2, "U": 3, "ACC": tl.float32})
    r = triton.compile(src, target=GPUTarget("cuda", 90, 32))
    print(triton.__version__, list(r.asm), len(r.asm.get("cubin", b"")))
