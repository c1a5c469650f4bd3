// One call, cut into tasks. Three ways to hold the image, chosen by its shape alone:
//   packed   many channels, small planes: a pack of channels is copied with its padding, channels in the lanes
//   padded   small planes of which much is read: copied with their padding, some channels at a time
//   direct   everything else: read where it lies; only vectors of points that touch the border look for the padding
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "packed.h"
#include "planar.h"
#include "schedule.h"

namespace stn {

constexpr int64_t PLANE_BYTES = 96 << 10;   // padded planes: they stay in L2 beside what is made of them
constexpr int64_t SPARSE = 6;               // pixels a point from which on copying a plane costs more than it saves
constexpr int64_t PACK_BYTES = 768 << 10;   // a pack of channels
constexpr int64_t CHUNK = 8192;             // points of a task that reads directly
constexpr int64_t FAR_BYTES = 2 << 20;      // an image read in place that is asked for ahead: L2 does not hold it
constexpr int64_t ENOUGH_TASKS = 6;         // that threads may take whole

template <class T, int D, class K> class Engine {
  public:
    explicit Engine(const Call& call) : c(call), pixels(call.pixels()), points(call.points()) {
        int64_t stride = 1;
        for (int i = 0; i < D; i++) {
            image.n[i] = image.end[i] = c.in[i];
            image.begin[i] = 0;
            image.stride[i] = stride;
            stride *= c.in[i];
            image.margin[i] = margin_of<K>(i);
            tables[i] = source_table<K>(c.in[i], i, (int)c.padding, c.align_corners);
            image.source[i] = tables[i].data();
        }
        image.padding = (int)c.padding;
        image.align_corners = c.align_corners;
        const int64_t plane = Padded<T, D, K, 1>(image).size * (int64_t)sizeof(T);
        const int64_t pack = Pack<T, D, K>(image).size * (int64_t)sizeof(T);
        packed = c.channels * 2 >= L && pack <= PACK_BYTES;
        padded = !packed && plane <= PLANE_BYTES && points * c.pairs() * SPARSE >= pixels * c.images;
        if (packed) together = L;
        if (padded) {  // channels that share the coordinates of a point; fewer where threads would go without work
            together = std::clamp<int64_t>(PLANE_BYTES / plane, 1, std::max<int64_t>(c.channels, 1));
            const int64_t wanted = c.result ? 3 * c.threads : ENOUGH_TASKS;  // sums go by groups, results do not
            while (together > 1 && c.images * ((c.channels + together - 1) / together) < wanted) together = (together + 1) / 2;
        }
        groups = (c.channels + together - 1) / together;
    }

    bool is_packed() const { return packed; }

    void forward() const {
        ask_huge_pages(c.result, c.pairs() * c.channels * points * (int64_t)sizeof(T), HUGE_BYTES);
        const int64_t work = c.pairs() * c.channels * points;
        if (packed || padded) {
            parallel(c.pairs() * groups, work, c.threads, [&](int64_t a, int64_t b) {
                packed ? forward_packs(a, b) : forward_planes(a, b);
            });
        } else {
            const int64_t chunks = (points + CHUNK - 1) / CHUNK;
            parallel(c.pairs() * chunks, work, c.threads, [&](int64_t a, int64_t b) { forward_direct(a, b, chunks); });
        }
    }

    void backward() const {
        const bool small = c.pairs() * c.channels * points < 2 * SERIAL_WORK;
        const int64_t tasks = packed || padded ? c.images * groups : c.images;
        const bool at_once = c.grad_image && c.grad_source && c.small_source() && (tasks >= ENOUGH_TASKS || small);
        if (c.grad_image) ask_huge_pages(c.grad_image, c.images * c.channels * pixels * (int64_t)sizeof(T), HUGE_BYTES);
        if (c.grad_source && !at_once) backward_source();
        if (c.grad_image) backward_image(at_once);
    }

  private:
    static constexpr int L = Simd<T>::lanes;
    using Whole = Padded<T, D, K, 1>;
    const Call& c;
    const int64_t pixels, points;
    Frame<D> image;
    std::vector<int32_t> tables[D];
    bool packed, padded;
    int64_t together = 1, groups;  // channels are worked on in groups of so many

    const T* plane_of(const void* tensor, int64_t n, int64_t channel, int64_t size) const {
        return (const T*)tensor + (n * c.channels + channel) * size;
    }
    Channels<T> channels_of(const void* tensor, int64_t n, int64_t group, int64_t size) const {
        return Channels<T>(tensor, n, size, c.channels, group * L, c.channels_last);
    }

    int64_t channels_in(int64_t group) const {
        return (group + 1) * together <= c.channels ? together : c.channels - group * together;
    }
    T* clear_planes(int slot, const Padded<T, D, K, 1>& p, T value) const {
        T* memory = scratch<T>(slot, p.size * together);
        for (int64_t i = 0; i < together; i++) p.clear(memory + i * p.size, value);
        return memory;
    }
    void pad_planes(const Padded<T, D, K, 1>& p, int64_t n, int64_t group, T* memory) const {
        for (int64_t i = 0; i < channels_in(group); i++)
            pad_plane(p, plane_of(c.image, n, group * together + i, pixels), memory + i * p.size);
    }

    // f(first point, how many, their cells) for the points [begin, end).
    template <class F> void blocks(const Sources<T, D>& s, const Frame<D>& frame, bool all_inside, int64_t begin, int64_t end, F f) const {
        Lane<T> x[D];
        Cells<T, D> cells;
        for (int64_t l = begin; l < end; l += BLOCK) {
            const int count = (int)(end - l < BLOCK ? end - l : BLOCK);
            s.locate(l, count, x);
            place<T, D, K>(frame, count, x, all_inside, cells);
            f(l, count, cells);
        }
    }
    // The same where images are read in place. Slanted lines through an image that no cache holds are nothing that a
    // processor foresees, so every block is placed, and asked of memory, while the one before it is worked on.
    template <class F>
    void blocks_in_place(const Sources<T, D>& s, const Frame<D>& frame, int64_t pair, bool read, bool written, int64_t begin,
                         int64_t end, F f) const {
        if (c.channels * pixels * (int64_t)sizeof(T) < FAR_BYTES) return blocks(s, frame, false, begin, end, f);
        if (begin >= end) return;
        Lane<T> x[D];
        Cells<T, D> cells[2];
        const auto prepare = [&](int64_t l, Cells<T, D>& of) {
            const int count = (int)(end - l < BLOCK ? end - l : BLOCK);
            s.locate(l, count, x);
            place<T, D, K>(frame, count, x, false, of);
            if (read) fetch(plane_of(c.image, c.image_of(pair), 0, pixels), of, count);
            if (written) fetch(plane_of(c.grad_image, c.image_of(pair), 0, pixels), of, count);
        };
        prepare(begin, cells[0]);
        for (int64_t l = begin, now = 0; l < end; l += BLOCK, now ^= 1) {
            if (l + BLOCK < end) prepare(l + BLOCK, cells[now ^ 1]);
            f(l, (int)(end - l < BLOCK ? end - l : BLOCK), cells[now]);
        }
    }
    // Asks for the tap of every point that is farthest along: the others were mostly read for earlier points.
    // Inlined by force: a function that only asks has no effect that GCC would see, and its calls are dropped.
    STN_INLINE void fetch(const T* first, const Cells<T, D>& cells, int count) const {
        for (int i = 1; i < D; i++) first += image.stride[i];
        for (int64_t ch = 0; ch < c.channels; ch++)
            for (int v = 0; v < count; v += L) {
                if (cells.reach[v / L] != INSIDE) continue;
                for (int l = v; l < v + L; l++) __builtin_prefetch(first + ch * pixels + cells.offset[l]);
            }
    }

    // Tasks are (pair, group); with one image for all pairs, those of one group follow each other and share its copy.
    void pair_and_group(int64_t task, int64_t& pair, int64_t& group) const {
        const bool shared = c.images == 1;
        pair = shared ? task % c.pairs() : task / groups;
        group = shared ? task / c.pairs() : task % groups;
    }
    void forward_planes(int64_t begin, int64_t end) const {
        const Whole p(image);
        T* memory = clear_planes(0, p, (T)c.fill);
        Sources<T, D> s(c);
        int64_t map = -1, held = -1;
        for (int64_t task = begin; task < end; task++) {
            int64_t pair, group;
            pair_and_group(task, pair, group);
            if (map != c.map_of(pair)) s.choose(map = c.map_of(pair));
            const int64_t planes = c.image_of(pair) * groups + group;
            if (held != planes) pad_planes(p, c.image_of(pair), group, memory);
            held = planes;
            T* out = (T*)plane_of(c.result, pair, group * together, points);
            blocks(s, p.frame, true, 0, points, [&](int64_t l, int count, const Cells<T, D>& cells) {
                for (int64_t i = 0; i < channels_in(group); i++)
                    read_planar<T, D, K, true>(memory + i * p.size + p.origin, p.frame, cells, count, (T)c.fill, out + i * points + l);
            });
        }
    }
    void forward_packs(int64_t begin, int64_t end) const {
        const Pack<T, D, K> p(image);
        T* memory = scratch<T>(0, p.size);
        p.clear(memory, (T)c.fill);
        Sources<T, D> s(c);
        int64_t map = -1, held = -1;
        for (int64_t task = begin; task < end; task++) {
            int64_t pair, group;
            pair_and_group(task, pair, group);
            if (map != c.map_of(pair)) s.choose(map = c.map_of(pair));
            const int64_t pack = c.image_of(pair) * groups + group;
            if (held != pack) pad_pack(p, channels_of(c.image, c.image_of(pair), group, pixels), memory);
            held = pack;
            const Channels<T> out = channels_of(c.result, pair, group, points);
            blocks(s, p.frame, true, 0, points, [&](int64_t l, int count, const Cells<T, D>& cells) {
                read_pack<T, D, K>(memory + p.origin, p.frame, cells, count, l, out);
            });
        }
    }
    void forward_direct(int64_t begin, int64_t end, int64_t chunks) const {
        Sources<T, D> s(c);
        int64_t map = -1;
        for (int64_t task = begin; task < end; task++) {
            const int64_t pair = task / chunks, first = task % chunks * CHUNK;
            const int64_t last = first + CHUNK < points ? first + CHUNK : points;
            if (map != c.map_of(pair)) s.choose(map = c.map_of(pair));
            blocks_in_place(s, image, pair, true, false, first, last, [&](int64_t l, int count, const Cells<T, D>& cells) {
                for (int64_t ch = 0; ch < c.channels; ch++)
                    read_planar<T, D, K, false>(plane_of(c.image, c.image_of(pair), ch, pixels), image, cells, count,
                                                (T)c.fill, (T*)plane_of(c.result, pair, ch, points) + l);
            });
        }
    }

    // Slopes as the padding rule passes them on, and nothing behind the last point.
    void finish(const Cells<T, D>& cells, int count, Lane<T> (&slopes)[D]) const {
        for (int i = 0; i < D && cells.bent; i++)
            for (int v = 0; v < count; v += L) store(&slopes[i][v], load(&slopes[i][v]) * load(&cells.slope[i][v]));
    }
    void pull(const Sources<T, D>& s, int64_t pair, int64_t l, int count, const Lane<T> (&slopes)[D], bool add, double* sums) const {
        if (c.small_source()) return s.pull(l, count, slopes, sums);
        s.pull_given(c.map_of(pair), l, count, slopes, add);
    }
    // The sums of every part of a map, added up in one order.
    void collect(const std::vector<double>& sums, int64_t parts) const {
        const int64_t size = c.source_size(), shared = c.maps == 1 ? c.pairs() * parts : parts;
        for (int64_t map = 0; map < c.maps; map++)
            for (int64_t q = 0; q < size; q++) {
                double all = 0;
                for (int64_t part = 0; part < shared; part++) all += sums[(map * shared + part) * size + q];
                ((T*)c.grad_source)[map * size + q] = (T)all;
            }
    }

    // Gradients of the map alone: tasks are pieces of the output, each through all channels.
    void backward_source() const {
        const bool shared = !c.small_source() && c.maps < c.pairs();  // one gradient for all images: one task adds them up
        const int64_t chunk = shared ? CHUNK / 4 : packed || padded ? 4 * CHUNK : CHUNK;
        const int64_t chunks = (points + chunk - 1) / chunk, repeats = shared ? c.pairs() : 1;
        std::vector<double> sums(c.small_source() ? c.pairs() * chunks * c.source_size() : 0);
        parallel(c.pairs() / repeats * chunks, c.pairs() * c.channels * points, c.threads, [&](int64_t begin, int64_t end) {
            Sources<T, D> s(c);
            for (int64_t task = begin; task < end; task++)
                for (int64_t repeat = 0; repeat < repeats; repeat++) {
                    const int64_t pair = task / chunks + repeat, first = task % chunks * chunk;
                    const int64_t last = first + chunk < points ? first + chunk : points;
                    double* to = c.small_source() ? sums.data() + task * c.source_size() : nullptr;
                    s.choose(c.map_of(pair));
                    source_of(s, pair, first, last, repeat > 0, to);
                }
        });
        if (c.small_source()) collect(sums, chunks);
    }
    void source_of(const Sources<T, D>& s, int64_t pair, int64_t first, int64_t last, bool add, double* sums) const {
        Lane<T> slopes[D];
        const int64_t n = c.image_of(pair);
        if (!packed && !padded) {
            return blocks_in_place(s, image, pair, true, false, first, last, [&](int64_t l, int count, const Cells<T, D>& cells) {
                for (int64_t ch = 0; ch < c.channels; ch++)
                    read_slopes_planar<T, D, K, false>(plane_of(c.image, n, ch, pixels), image, cells, count, (T)c.fill,
                                                       plane_of(c.grad_result, pair, ch, points) + l, ch > 0, slopes);
                finish(cells, count, slopes);
                pull(s, pair, l, count, slopes, add, sums);
            });
        }
        const Whole plane(image);
        const Pack<T, D, K> pack(image);
        const Frame<D>& frame = packed ? pack.frame : plane.frame;
        T* memory = packed ? scratch<T>(0, pack.size) : clear_planes(0, plane, (T)c.fill);
        if (packed) pack.clear(memory, (T)c.fill);
        for (int64_t group = 0; group < groups; group++) {
            packed ? pad_pack(pack, channels_of(c.image, n, group, pixels), memory)
                   : pad_planes(plane, n, group, memory);
            blocks(s, frame, true, first, last, [&](int64_t l, int count, const Cells<T, D>& cells) {
                if (packed) {
                    pull_pack<T, D, K>(memory + pack.origin, nullptr, frame, cells, count, l,
                                       channels_of(c.grad_result, pair, group, points), slopes);
                } else {
                    const T* g = plane_of(c.grad_result, pair, group * together, points) + l;
                    for (int64_t i = 0; i < channels_in(group); i++)
                        read_slopes_planar<T, D, K, true>(memory + i * plane.size + plane.origin, frame, cells, count, (T)c.fill,
                                                          g + i * points, i > 0, slopes);
                }
                finish(cells, count, slopes);
                pull(s, pair, l, count, slopes, add || group > 0, sums);
            });
        }
    }

    // Gradients of the image, and at once those of the map. A task owns one group of channels of an image, or the rows
    // [begin, end) of the slowest axis of a whole one, and adds to each pixel in one order: the bits do not depend on the
    // slabs.
    void backward_image(bool with_source) const {
        const int64_t rows = c.in[D - 1], parts = packed || padded ? groups : 1, tasks = c.images * parts;
        int64_t slabs = 1;
        if (!with_source && !packed && !padded && tasks < ENOUGH_TASKS && c.threads > 1 && !forked()) {
            slabs = c.threads / std::gcd(tasks, c.threads);  // as many tasks for each thread
            if (slabs > rows / 8) slabs = rows / 8 > 0 ? rows / 8 : 1;
        }
        std::vector<double> sums(with_source ? c.pairs() * parts * c.source_size() : 0);
        double* to = with_source ? sums.data() : nullptr;
        parallel(tasks * slabs, c.pairs() * c.channels * points, c.threads, [&](int64_t begin, int64_t end) {
            for (int64_t task = begin; task < end; task++) {
                const int64_t n = task / slabs / parts, group = task / slabs % parts, slab = task % slabs;
                if (packed) image_packs(n, group, to);
                else if (padded) image_planes(n, group, to);
                else image_direct(n, rows * slab / slabs, rows * (slab + 1) / slabs, to);
            }
        });
        if (with_source) collect(sums, parts);
    }
    // f(pair) for the pairs that read image n.
    template <class F> void pairs_of(int64_t n, F f) const {
        if (c.images > 1) return f(n);
        for (int64_t pair = 0; pair < c.pairs(); pair++) f(pair);
    }
    double* part(double* sums, int64_t pair, int64_t group) const {
        return sums ? sums + (pair * groups + group) * c.source_size() : nullptr;
    }
    void image_packs(int64_t n, int64_t group, double* sums) const {
        const Pack<T, D, K> p(image);
        T *memory = scratch<T>(0, p.size), *grad = scratch<T>(1, p.size);
        p.clear(grad, 0);
        if (sums) {
            p.clear(memory, (T)c.fill);
            pad_pack(p, channels_of(c.image, n, group, pixels), memory);
        }
        Sources<T, D> s(c);
        Lane<T> slopes[D];
        pairs_of(n, [&](int64_t pair) {
            s.choose(c.map_of(pair));
            const Channels<T> g = channels_of(c.grad_result, pair, group, points);
            blocks(s, p.frame, true, 0, points, [&](int64_t l, int count, const Cells<T, D>& cells) {
                pull_pack<T, D, K>(memory + p.origin, grad + p.origin, p.frame, cells, count, l, g, sums ? slopes : nullptr);
                if (!sums) return;
                finish(cells, count, slopes);
                s.pull(l, count, slopes, part(sums, pair, group));
            });
        });
        unpad_pack(p, grad, channels_of(c.grad_image, n, group, pixels));
    }
    void image_planes(int64_t n, int64_t group, double* sums) const {
        const Whole p(image);
        T *memory = sums ? clear_planes(0, p, (T)c.fill) : nullptr, *grad = clear_planes(1, p, 0);
        if (sums) pad_planes(p, n, group, memory);
        Sources<T, D> s(c);
        Lane<T> slopes[D];
        pairs_of(n, [&](int64_t pair) {
            s.choose(c.map_of(pair));
            blocks(s, p.frame, true, 0, points, [&](int64_t l, int count, const Cells<T, D>& cells) {
                for (int64_t i = 0; i < channels_in(group); i++) {
                    const T* g = plane_of(c.grad_result, pair, group * together + i, points) + l;
                    const int64_t at = i * p.size + p.origin;
                    scatter_planar<T, D, K, true>(p.frame, cells, count, g, grad + at);
                    if (!sums) continue;
                    read_slopes_planar<T, D, K, true>(memory + at, p.frame, cells, count, (T)c.fill, g, i > 0, slopes);
                }
                if (!sums) return;
                finish(cells, count, slopes);
                s.pull(l, count, slopes, part(sums, pair, group));
            });
        });
        for (int64_t i = 0; i < channels_in(group); i++)
            unpad_plane(p, grad + i * p.size, (T*)plane_of(c.grad_image, n, group * together + i, pixels));
    }
    // The rows [begin, end) of the slowest axis of all channels of an image: they share the coordinates.
    void image_direct(int64_t n, int64_t begin, int64_t end, double* sums) const {
        const int64_t row = pixels / c.in[D - 1];
        for (int64_t ch = 0; ch < c.channels; ch++)
            memset((T*)plane_of(c.grad_image, n, ch, pixels) + begin * row, 0, (end - begin) * row * sizeof(T));
        Frame<D> slab = image;
        std::vector<int32_t> table = tables[D - 1];
        for (int32_t& from : table)
            if (from < begin || from >= end) from = -1;
        slab.source[D - 1] = table.data();
        slab.begin[D - 1] = begin;
        slab.end[D - 1] = end;
        Sources<T, D> s(c);
        Lane<T> slopes[D];
        pairs_of(n, [&](int64_t pair) {
            s.choose(c.map_of(pair));
            blocks_in_place(s, slab, pair, sums, true, 0, points, [&](int64_t l, int count, const Cells<T, D>& cells) {
                for (int64_t ch = 0; ch < c.channels; ch++) {
                    const T* g = plane_of(c.grad_result, pair, ch, points) + l;
                    scatter_planar<T, D, K, false>(slab, cells, count, g, (T*)plane_of(c.grad_image, n, ch, pixels));
                    if (!sums) continue;
                    read_slopes_planar<T, D, K, false>(plane_of(c.image, n, ch, pixels), slab, cells, count, (T)c.fill, g,
                                                       ch > 0, slopes);
                }
                if (!sums) return;
                finish(cells, count, slopes);
                s.pull(l, count, slopes, sums + pair * c.source_size());
            });
        });
    }
};

}  // namespace stn
