// Points in leaves: near in space, halved along the widest axis, with what a search reads of each.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

static constexpr int LEAF = 64;   // points of a leaf: as many as the bits of a mask of hits
static constexpr int GROUP = 32;  // queries that share one list of leaves
static constexpr double HALF_ULP = 0x1p-24;  // rounding of float32
static constexpr double INFINITE = std::numeric_limits<double>::infinity();

typedef float Lanes __attribute__((vector_size(64), aligned(64)));

// Leaves of up to 64 points, near in space; `order` lists the points leaf by leaf.
struct Leaves {
  const double* x;  // (n, d)
  int64_t n, d;
  std::vector<int64_t> order, begin;

  Leaves(const double* x, int64_t n, int64_t d) : x(x), n(n), d(d), order(n) {
    for (int64_t i = 0; i < n; ++i) order[i] = i;
    if (n) split(0, n);
    begin.push_back(n);
  }

  int64_t count() const { return int64_t(begin.size()) - 1; }

  // halves along the widest axis, the first half in whole leaves
  void split(int64_t first, int64_t last) {
    if (last - first <= LEAF) { begin.push_back(first); return; }
    std::vector<double> low(d, INFINITE), high(d, -INFINITE);
    for (int64_t p = first; p < last; ++p)
      for (int64_t a = 0; a < d; ++a) {
        const double v = x[order[p] * d + a];
        low[a] = std::min(low[a], v);
        high[a] = std::max(high[a], v);
      }
    int64_t axis = 0;
    for (int64_t a = 1; a < d; ++a)
      if (high[a] - low[a] > high[axis] - low[axis]) axis = a;
    const int64_t leaves = (last - first + LEAF - 1) / LEAF, middle = first + leaves / 2 * LEAF;
    const double* column = x + axis;
    const int64_t stride = d;
    std::nth_element(order.begin() + first, order.begin() + middle, order.begin() + last, [=](int64_t a, int64_t b) {
      const double u = column[a * stride], v = column[b * stride];
      return u < v || (u == v && a < b);
    });
    split(first, middle);
    split(middle, last);
  }
};

// What a search reads of each leaf.
struct Shelf {
  int64_t d, leaves;
  std::vector<Lanes> scan;            // (leaves, d, 64) coordinates relative to the middle of all
  std::vector<double> low, high;      // (d, leaves)
  std::vector<double> middle;         // (d)
  double largest = 0, longest = 0;    // largest coordinate, largest distance from the middle

  Shelf(const Leaves& tree, const double* x) : d(tree.d), leaves(tree.count()), middle(tree.d, 0.0) {
    constexpr int PARTS = LEAF / 16;
    scan.assign(leaves * d * PARTS, Lanes{});
    low.assign(leaves * d, INFINITE);
    high.assign(leaves * d, -INFINITE);
    for (int64_t p = 0; p < tree.n; ++p)
      for (int64_t a = 0; a < d; ++a) {
        middle[a] += x[p * d + a] / double(tree.n);
        largest = std::max(largest, std::fabs(x[p * d + a]));
      }
    for (int64_t l = 0; l < leaves; ++l) {
      const int64_t first = tree.begin[l], last = tree.begin[l + 1];
      float* columns = reinterpret_cast<float*>(&scan[l * d * PARTS]);
      for (int64_t p = first; p < last; ++p) {
        const double* point = x + tree.order[p] * d;
        double square = 0;
        for (int64_t a = 0; a < d; ++a) {
          const double v = point[a], t = v - middle[a];
          low[a * leaves + l] = std::min(low[a * leaves + l], v);
          high[a * leaves + l] = std::max(high[a * leaves + l], v);
          columns[a * LEAF + p - first] = float(t);
          square += t * t;
        }
        longest = std::max(longest, std::sqrt(square));
      }
    }
  }
};
