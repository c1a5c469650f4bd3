// The functions that Python calls. Compiled once for each instruction set; no torch headers, so one build serves every
// torch and every Python.
#include "engine.h"

namespace stn {

template <class T, int D, class K> int64_t run(const Call& call, int what) {
    const Engine<T, D, K> engine(call);
    if (what == 0) engine.forward();
    if (what == 1) engine.backward();
    return engine.is_packed();
}
template <class T, int D> int64_t run(const Call& call, int what) {
    switch (call.interpolation) {
        case NEAREST: return run<T, D, Nearest>(call, what);
        case LINEAR: return run<T, D, Linear>(call, what);
        default: return run<T, D, Cubic>(call, what);
    }
}
int64_t run(const Call& call, int what) {
    if (call.wide) return call.dims == 2 ? run<double, 2>(call, what) : run<double, 3>(call, what);
    return call.dims == 2 ? run<float, 2>(call, what) : run<float, 3>(call, what);
}

}  // namespace stn

extern "C" {
#define STN_EXPORT __attribute__((visibility("default")))
STN_EXPORT void stn_forward(const void* call) { stn::run(*(const stn::Call*)call, 0); }
STN_EXPORT void stn_backward(const void* call) { stn::run(*(const stn::Call*)call, 1); }
// Whether channels are packed: then any memory format is read as it lies, else (N, C, *in) is wanted.
STN_EXPORT int64_t stn_packs(const void* call) { return stn::run(*(const stn::Call*)call, 2); }
STN_EXPORT int64_t stn_call_bytes() { return sizeof(stn::Call); }
}
