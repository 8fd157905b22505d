// Exact nearest neighbours: leaves of a tree are scanned in float32, and what passes is measured in float64.

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
static constexpr int GROUP = 16;  // queries that share one list of leaves
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

// bits of the lanes at or below the bound
static inline uint64_t hits(const Lanes* sums, float bound) {
  uint64_t mask = 0;
#ifdef __AVX512F__
  for (int v = 0; v < LEAF / 16; ++v)
    mask |= uint64_t(_mm512_cmp_ps_mask(__m512(sums[v]), _mm512_set1_ps(bound), _CMP_LE_OQ)) << (16 * v);
#else
  const float* value = reinterpret_cast<const float*>(sums);
  for (int l = 0; l < LEAF; ++l) mask |= uint64_t(value[l] <= bound) << l;
#endif
  return mask;
}

// lanes of a leaf within the bound of a query, both relative to the middle
static inline uint64_t scan_leaf(const Lanes* column, const float* query, int64_t d, float bound) {
  Lanes sums[LEAF / 16] = {};
  int64_t a = 0;
  while (true) {
    const int64_t stop = std::min(d, a + 4);  // most leaves are far: look after every fourth coordinate
    for (; a < stop; ++a) {
      const float q = query[a];
      for (int v = 0; v < LEAF / 16; ++v) {
        const Lanes t = column[a * (LEAF / 16) + v] - q;
        sums[v] += t * t;
      }
    }
    const uint64_t mask = hits(sums, bound);
    if (mask == 0 || a == d) return mask;
  }
}

static inline double exact_square(const double* a, const double* b, int64_t d) {
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  int64_t i = 0;
  for (; i + 4 <= d; i += 4) {
    const double t0 = a[i] - b[i], t1 = a[i + 1] - b[i + 1], t2 = a[i + 2] - b[i + 2], t3 = a[i + 3] - b[i + 3];
    s0 += t0 * t0; s1 += t1 * t1; s2 += t2 * t2; s3 += t3 * t3;
  }
  for (; i < d; ++i) s0 += (a[i] - b[i]) * (a[i] - b[i]);
  return (s0 + s1) + (s2 + s3);
}

struct Candidate {
  double square;
  int32_t index;
  bool operator<(const Candidate& other) const {
    return square < other.square || (square == other.square && index < other.index);
  }
};

// A query and what is known of its neighbours.
struct Query {
  int64_t row, self;      // row of the output; its own index among the points, or -1
  int64_t k;              // neighbours wanted
  const double* exact;    // (d) its coordinates
  const double* turned;   // (d) the same along principal axes
  std::vector<float> local;  // (d) relative to the middle
  double margin;          // what float32 and the turn may get wrong
  double bound;           // squared distance beyond which no point is worth a look
  float loose;            // the same for the scan
  std::vector<Candidate> found;

  Query(int64_t row, int64_t self, int64_t k, const double* exact, const double* turned, const Shelf& shelf)
      : row(row), self(self), k(k), exact(exact), turned(turned), local(shelf.d), bound(INFINITE), loose(FLT_MAX) {
    double square = 0;
    for (int64_t a = 0; a < shelf.d; ++a) {
      const double v = turned[a] - shelf.middle[a];
      local[a] = float(v);
      square += v * v;
    }
    margin = 1.1 * HALF_ULP * (std::sqrt(square) + shelf.longest) + 1e-12 * shelf.largest;
    found.reserve(2 * k + LEAF);
  }

  // keep the k nearest so far
  void trim() {
    if (int64_t(found.size()) < k) return;
    std::nth_element(found.begin(), found.begin() + (k - 1), found.end());
    found.resize(k);
    bound = found[k - 1].square;
    const double radius = std::sqrt(bound) * (1 + 2 * HALF_ULP) + margin;
    loose = float(std::min(double(FLT_MAX), radius * radius * (1 + (double(local.size()) + 8) * HALF_ULP)));
  }
};

struct Search {
  const double* points;   // (n, d)
  const double* space;    // (n, d) the same, turned to principal axes
  int64_t n, d;
  const double* queries;  // (q, d) or null where the queries are points
  const double* turned;   // (q, d) or null
  int64_t count;          // q
  const int64_t* rows;    // (q) points that are asked for, or null
  const int64_t* k;       // (q) neighbours wanted
  const int64_t* offset;  // (q) where each answer starts
  double* distances;
  int32_t* indices;
  int64_t threads;
};

// one leaf, for every query of a group
static void visit(const Leaves& tree, const Shelf& shelf, const std::vector<double>& ordered, int64_t leaf,
                  double distance, std::vector<Query>& group) {
  const int64_t d = shelf.d, first = tree.begin[leaf], size = tree.begin[leaf + 1] - first;
  const uint64_t present = size == LEAF ? ~0ull : (1ull << size) - 1;
  for (Query& query : group) {
    if (distance > query.bound) continue;
    uint64_t mask = scan_leaf(&shelf.scan[leaf * d * (LEAF / 16)], query.local.data(), d, query.loose) & present;
    while (mask) {
      const int64_t place = first + __builtin_ctzll(mask);
      mask &= mask - 1;
      if (tree.order[place] == query.self) continue;
      const double square = exact_square(&ordered[place * d], query.exact, d);
      if (square <= query.bound) query.found.push_back({square, int32_t(tree.order[place])});
    }
    if (int64_t(query.found.size()) >= query.k + (query.bound < INFINITE ? std::max<int64_t>(query.k / 2, 16) : 0))
      query.trim();
  }
}

static void answer(const Search& s, Query& query) {
  query.trim();
  std::sort(query.found.begin(), query.found.end());
  double* distances = s.distances + s.offset[query.row];
  int32_t* indices = s.indices + s.offset[query.row];
  if (query.self >= 0) { *distances++ = 0; *indices++ = int32_t(query.self); }
  for (const Candidate& one : query.found) { *distances++ = std::sqrt(one.square); *indices++ = one.index; }
}

static void search_group(const Search& s, const Leaves& tree, const Shelf& shelf, const std::vector<double>& ordered,
                         std::vector<Query>& group) {
  struct Near { double distance; int32_t leaf; bool operator<(const Near& o) const { return distance < o.distance; } };
  const int64_t leaves = shelf.leaves;
  std::vector<double> gap(leaves, 0);
  int64_t most = 0;
  for (const Query& query : group) most = std::max(most, query.k);
  for (int64_t a = 0; a < s.d; ++a) {
    double low = INFINITE, high = -INFINITE;
    for (const Query& query : group) {
      low = std::min(low, query.turned[a]);
      high = std::max(high, query.turned[a]);
    }
    const double *lows = &shelf.low[a * leaves], *highs = &shelf.high[a * leaves];
    for (int64_t l = 0; l < leaves; ++l) {
      double t = std::max(lows[l] - high, low - highs[l]);
      t = t > 0 ? t : 0;
      gap[l] += t * t;
    }
  }
  std::vector<Near> near(leaves);
  // the turn to principal axes rounds: a little less is a safe bound
  const double slack = 1e-12 * shelf.largest;
  for (int64_t l = 0; l < leaves; ++l) {
    const double t = std::max(0.0, std::sqrt(gap[l]) * (1 - 1e-12) - slack);
    near[l] = {t * t, int32_t(l)};
  }
  const int64_t start = std::min(leaves, 2 + 3 * most / (2 * LEAF));
  auto closest = [&](int64_t from, int64_t to) {
    std::sort(near.begin() + from, near.begin() + to, [](const Near& a, const Near& b) {
      return a.distance < b.distance || (a.distance == b.distance && a.leaf < b.leaf);
    });
    double worst = INFINITE;
    for (int64_t i = from; i < to; ++i) {
      worst = 0;
      for (const Query& query : group) worst = std::max(worst, query.bound);
      if (near[i].distance > worst) return worst;
      visit(tree, shelf, ordered, near[i].leaf, near[i].distance, group);
    }
    worst = 0;
    for (const Query& query : group) worst = std::max(worst, query.bound);
    return worst;
  };
  std::nth_element(near.begin(), near.begin() + (start - 1), near.end());
  const double worst = closest(0, start);
  const auto end = std::partition(near.begin() + start, near.end(), [=](const Near& a) { return a.distance <= worst; });
  closest(start, end - near.begin());
  for (Query& query : group) answer(s, query);
}

// order of points near in space: (n)
extern "C" int64_t spatial_order(const double* x, int64_t n, int64_t d, int64_t* order) {
  const Leaves tree(x, n, d);
  std::copy(tree.order.begin(), tree.order.end(), order);
  return 0;
}

extern "C" int64_t nearest(const Search* given) {
  const Search& s = *given;
  const Leaves tree(s.space, s.n, s.d);
  const Shelf shelf(tree, s.space);
  std::vector<double> ordered(s.n * s.d);
  std::vector<int64_t> place(s.n);
  for (int64_t p = 0; p < s.n; ++p) {
    place[tree.order[p]] = p;
    std::copy_n(s.points + tree.order[p] * s.d, s.d, &ordered[p * s.d]);
  }
  std::vector<int64_t> turn(s.count);
  for (int64_t i = 0; i < s.count; ++i) turn[i] = i;
  if (s.queries)
    turn = Leaves(s.turned, s.count, s.d).order;
  else
    std::sort(turn.begin(), turn.end(), [&](int64_t a, int64_t b) { return place[s.rows[a]] < place[s.rows[b]]; });
  const int64_t groups = (s.count + GROUP - 1) / GROUP;
#pragma omp parallel for schedule(dynamic, 4) num_threads(int(s.threads))
  for (int64_t g = 0; g < groups; ++g) {
    std::vector<Query> group;
    group.reserve(GROUP);
    for (int64_t i = g * GROUP; i < std::min(s.count, (g + 1) * GROUP); ++i) {
      const int64_t row = turn[i];
      if (s.queries)
        group.emplace_back(row, -1, s.k[row], s.queries + row * s.d, s.turned + row * s.d, shelf);
      else
        group.emplace_back(row, s.rows[row], s.k[row], s.points + s.rows[row] * s.d, s.space + s.rows[row] * s.d, shelf);
    }
    search_group(s, tree, shelf, ordered, group);
  }
  return 0;
}
