"""Implementations of sampling.

Each module has UNITS (of the points it reads), why_not(problem), not_by_default(problem) and
sample(image, points, interpolation, problem): (N, C, *in), (N, M, d) -> (N, C, M). Those that read through lowered maps
themselves have reader(size, problem, plain) too; docs/architecture.md, "A backend", names what else there may be.
"""
