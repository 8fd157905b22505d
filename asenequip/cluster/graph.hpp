// Neighbourhoods: how far each sees one density, gradients, what they predict along edges, the normal equations.

// Neighbours of point i: start[i] .. start[i] + size[i], the point itself first.
struct Lists {
  const double* distances;
  const int32_t* indices;
  const int64_t* start;  // (n)
  const int64_t* size;   // (n) neighbours, the point itself not counted
  int64_t n;
};

// Continue the test for one density from rank `next` of each point against the points of `reference`. A point is done
// once a rank fails or `limit` is reached. Where neighbours are missing, `wanted` marks whose list must grow; where it
// is null no list can, and the point is done.
extern "C" int64_t test_density(const Lists* points, const Lists* reference, const double* ratio, int64_t limit,
                                int64_t* next, int64_t* k_star, uint8_t* wanted, int64_t threads) {
  const Lists &s = *points, &r = *reference;
  int64_t open = 0;
#pragma omp parallel for schedule(dynamic, 256) num_threads(int(threads)) reduction(+ : open)
  for (int64_t i = 0; i < s.n; ++i) {
    if (k_star[i] > 0) continue;
    const double* own = s.distances + s.start[i];
    const int32_t* near = s.indices + s.start[i];
    int64_t j = next[i];
    for (; j < limit; ++j) {
      const int64_t missing = j > s.size[i] ? i : j - 1 > r.size[near[j]] ? near[j] : -1;
      if (missing >= 0) {
        if (!wanted) k_star[i] = j - 1;
        else
#pragma omp atomic write
          wanted[missing] = 1;
        break;
      }
      const double a = own[j - 1], b = r.distances[r.start[near[j]] + j - 1];
      if (a > ratio[j - 1] * b || b > ratio[j - 1] * a) { k_star[i] = j - 1; break; }
    }
    if (j == limit) k_star[i] = limit - 1;
    next[i] = j;
    open += k_star[i] == 0;
  }
  return open;
}

// A graph in rows: edges of point i are start[i] .. start[i + 1].
struct Rows {
  const int64_t* start;
  const int32_t* target;
};

struct Space {
  const double* x;       // (n, d)
  const double* period;  // (d), 0 where there is none, or null
  const double* counts;  // (n) or null
  int64_t n, d;
  double dimension;
  int64_t threads;
};

static inline void difference(const Space& s, int64_t from, int64_t to, double* v) {
  for (int64_t a = 0; a < s.d; ++a) v[a] = s.x[to * s.d + a] - s.x[from * s.d + a];
  if (s.period)
    for (int64_t a = 0; a < s.d; ++a)
      if (s.period[a] > 0) v[a] -= s.period[a] * std::rint(v[a] / s.period[a]);
}

static inline double dot(const double* a, const double* b, int64_t d) {
  double s0 = 0, s1 = 0;
  int64_t i = 0;
  for (; i + 2 <= d; i += 2) { s0 += a[i] * b[i]; s1 += a[i + 1] * b[i + 1]; }
  return i < d ? s0 + s1 + a[i] * b[i] : s0 + s1;
}

// Mean shifts: gradient (n, d), scale c (n), points averaged over m (n), mean squared distance (n), and, unless null,
// covariances packed by upper triangles with off-diagonal entries doubled (n, d (d + 1) / 2).
extern "C" int64_t mean_shifts(const Space* space, const Rows* hoods, double floor, double* gradient, double* scale,
                               double* total, double* spread, double* packed) {
  const Space& s = *space;
  const int64_t d = s.d, pairs = d * (d + 1) / 2;
#pragma omp parallel for schedule(dynamic, 64) num_threads(int(s.threads))
  for (int64_t i = 0; i < s.n; ++i) {
    std::vector<double> v(d), second(packed ? pairs : 0, 0.0);
    double* g = gradient + i * d;
    std::fill_n(g, d, 0.0);
    double m = s.counts ? s.counts[i] - 1 : 0, squares = 0, square = 0;
    const int64_t first = hoods->start[i], last = hoods->start[i + 1];
    for (int64_t e = first; e < last; ++e) {
      const int64_t j = hoods->target[e];
      difference(s, i, j, v.data());
      const double w = s.counts ? s.counts[j] : 1.0;
      square = dot(v.data(), v.data(), d);
      squares += square;
      m += w;
      for (int64_t a = 0; a < d; ++a) g[a] += w * v[a];
      if (packed) {
        double* out = second.data();
        for (int64_t a = 0; a < d; ++a) {
          const double wa = w * v[a];
          for (int64_t b = a; b < d; ++b) *out++ += wa * v[b];
        }
      }
    }
    const double c = (s.dimension + 2) / square;
    for (int64_t a = 0; a < d; ++a) g[a] *= c / m;
    scale[i] = c;
    total[i] = m;
    spread[i] = squares / double(last - first);
    if (packed) {
      double* out = packed + i * pairs;
      for (int64_t a = 0, p = 0; a < d; ++a)
        for (int64_t b = a; b < d; ++b, ++p) {
          const double value = (second[p] * c * c / m - g[a] * g[b]) * (m + 1) / (m * m);
          out[p] = a == b ? value + floor : 2 * value;
        }
    }
  }
  return 0;
}

// v^T C v from packed covariances
static inline double packed_form(const double* c, const double* v, int64_t d) {
  double sum = 0;
  for (int64_t a = 0; a < d; ++a) {
    double inner = 0;
    for (int64_t b = a; b < d; ++b) inner += *c++ * v[b];
    sum += v[a] * inner;
  }
  return sum;
}

// Neighbourhoods as bits: point j is bit j % 64 of word j / 64. Points near in space share words.
struct Bits {
  std::vector<int64_t> start;
  std::vector<int32_t> word;
  std::vector<uint64_t> mask;

  Bits(const Rows& hoods, int64_t n) : start(n + 1, 0) {
    std::vector<uint64_t> held(n / 64 + 1, 0);
    std::vector<int32_t> touched;
    for (int64_t i = 0; i < n; ++i) {
      touched.clear();
      auto set = [&](int64_t j) {
        if (held[j >> 6] == 0) touched.push_back(int32_t(j >> 6));
        held[j >> 6] |= 1ull << (j & 63);
      };
      set(i);
      for (int64_t e = hoods.start[i]; e < hoods.start[i + 1]; ++e) set(hoods.target[e]);
      for (int32_t w : touched) {
        word.push_back(w);
        mask.push_back(held[w]);
        held[w] = 0;
      }
      start[i + 1] = int64_t(word.size());
    }
  }
};

// Points that the neighbourhoods of the two ends of each link share, the ends included.
extern "C" int64_t shared_points(const Rows* hoods, const Rows* links, int64_t n, int32_t* result, int64_t threads) {
  const Bits bits(*hoods, n);
#pragma omp parallel num_threads(int(threads))
  {
    std::vector<uint64_t> held(n / 64 + 1, 0);
#pragma omp for schedule(dynamic, 64)
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t b = bits.start[i]; b < bits.start[i + 1]; ++b) held[bits.word[b]] = bits.mask[b];
      for (int64_t e = links->start[i]; e < links->start[i + 1]; ++e) {
        const int64_t j = links->target[e];
        int64_t common = 0;
        for (int64_t b = bits.start[j]; b < bits.start[j + 1]; ++b)
          common += __builtin_popcountll(held[bits.word[b]] & bits.mask[b]);
        result[e] = int32_t(common);
      }
      for (int64_t b = bits.start[i]; b < bits.start[i + 1]; ++b) held[bits.word[b]] = 0;
    }
  }
  return 0;
}

struct Slopes {
  const double* gradient;  // (n, d)
  const double* scale;     // (n), c times the factor on the gradient
  const double* total;     // (n)
  const double* packed;    // (n, d (d + 1) / 2), or null: products of neighbour vectors instead
  double floor;
};

// v^T C v at point i from the products of v with its neighbours' vectors
static double gram_form(const Space& s, const Rows& hoods, const Slopes& g, int64_t i, const double* v, double slope,
                        double square, double* work) {
  double sum = 0;
  for (int64_t e = hoods.start[i]; e < hoods.start[i + 1]; ++e) {
    const int64_t j = hoods.target[e];
    difference(s, i, j, work);
    const double p = dot(work, v, s.d);
    sum += (s.counts ? s.counts[j] : 1.0) * p * p;
  }
  const double m = g.total[i];
  return (g.scale[i] * g.scale[i] / m * sum - slope * slope) * (m + 1) / (m * m) + g.floor * square;
}

// Along each link: predicted difference, its variance, signed deviations at both ends; `common` counts shared points.
extern "C" int64_t predict_links(const Space* space, const Rows* hoods, const Rows* links, const Slopes* slopes,
                                 const int64_t* k_star, const int32_t* common, double* predicted, double* variance,
                                 double* at_source, double* at_target, double* overlap) {
  const Space& s = *space;
  const Slopes& g = *slopes;
  const int64_t d = s.d, pairs = d * (d + 1) / 2;
#pragma omp parallel for schedule(dynamic, 64) num_threads(int(s.threads))
  for (int64_t i = 0; i < s.n; ++i) {
    std::vector<double> v(d), work(d);
    for (int64_t e = links->start[i]; e < links->start[i + 1]; ++e) {
      const int64_t j = links->target[e];
      difference(s, i, j, v.data());
      const double a = dot(g.gradient + i * d, v.data(), d), b = dot(g.gradient + j * d, v.data(), d);
      double va, vb;
      if (g.packed) {
        va = packed_form(g.packed + i * pairs, v.data(), d);
        vb = packed_form(g.packed + j * pairs, v.data(), d);
      } else {
        const double square = dot(v.data(), v.data(), d);
        va = gram_form(s, *hoods, g, i, v.data(), a, square, work.data());
        vb = gram_form(s, *hoods, g, j, v.data(), b, square, work.data());
      }
      const double p = double(common[e]) / double(k_star[i] + k_star[j] - common[e]);
      va = va > 0 ? va : 0;
      vb = vb > 0 ? vb : 0;
      const double da = a == 0 ? 0 : std::copysign(std::sqrt(va), a), db = b == 0 ? 0 : std::copysign(std::sqrt(vb), b);
      predicted[e] = 0.5 * (a + b);
      variance[e] = 0.25 * (va + vb + 2 * p * da * db);
      at_source[e] = da;
      at_target[e] = db;
      overlap[e] = p;
    }
  }
  return 0;
}

// Normal equations of the links: rows of the matrix, diagonal first, and the right-hand side. There is room for
// n + 2 edges entries; gives how many are used.
extern "C" int64_t normal_equations(const Rows* links, int64_t n, const double* weight, const double* predicted,
                                    int64_t* start, int32_t* column, double* value, double* right) {
  const int64_t edges = links->start[n];
  std::vector<int64_t> inward(n + 1, 0), link(edges);
  std::vector<int32_t> source(edges);
  for (int64_t e = 0; e < edges; ++e) ++inward[links->target[e] + 1];
  for (int64_t i = 0; i < n; ++i) inward[i + 1] += inward[i];
  std::vector<int64_t> fill(inward.begin(), inward.end() - 1);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t e = links->start[i]; e < links->start[i + 1]; ++e) {
      const int64_t p = fill[links->target[e]]++;
      link[p] = e;
      source[p] = int32_t(i);
    }
  std::vector<int64_t> place(n, -1);  // where the entry of a column stands, if in the row at hand
  int64_t used = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = used++;
    double diagonal = 0, flow = 0;
    auto add = [&](int64_t j, int64_t e, double sign) {
      if (place[j] < first) {
        place[j] = used++;
        column[place[j]] = int32_t(j);
        value[place[j]] = 0;
      }
      value[place[j]] -= weight[e];
      diagonal += weight[e];
      flow += sign * weight[e] * predicted[e];
    };
    for (int64_t e = links->start[i]; e < links->start[i + 1]; ++e) add(links->target[e], e, -1.0);
    for (int64_t p = inward[i]; p < inward[i + 1]; ++p) add(source[p], link[p], 1.0);
    column[first] = int32_t(i);
    value[first] = diagonal;
    right[i] = flow;
    start[i] = first;
  }
  start[n] = used;
  return used;
}

// Copy `counts` items of `width` bytes from source places to target places.
extern "C" int64_t copy_stretches(char* values, const int64_t* target, const char* old, const int64_t* source,
                                  const int64_t* counts, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(values + target[i] * width, old + source[i] * width, counts[i] * width);
  return 0;
}

// Changes of the gradients, (n, d, B), when every point m gets B random multipliers (n, B) wherever it is a neighbour.
extern "C" int64_t random_shifts(const Space* space, const Rows* hoods, const double* gradient, const double* scale,
                                 const double* total, const double* multiplier, int64_t B, double* change) {
  const Space& s = *space;
  const int64_t d = s.d;
  std::vector<double> v(d), sum(B);
  for (int64_t i = 0; i < s.n; ++i) {
    double* out = change + i * d * B;
    std::fill_n(out, d * B, 0.0);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t e = hoods->start[i]; e < hoods->start[i + 1]; ++e) {
      const int64_t j = hoods->target[e];
      const double* xi = multiplier + j * B;
      difference(s, i, j, v.data());
      for (int64_t a = 0; a < d; ++a)
        for (int64_t b = 0; b < B; ++b) out[a * B + b] += v[a] * xi[b];
      for (int64_t b = 0; b < B; ++b) sum[b] += xi[b];
    }
    for (int64_t a = 0; a < d; ++a)
      for (int64_t b = 0; b < B; ++b) out[a * B + b] = (scale[i] * out[a * B + b] - sum[b] * gradient[i * d + a]) / total[i];
  }
  return 0;
}

// Right-hand sides (n, B), zeroed by the caller, that changes of the gradients (n, d, B) make.
extern "C" int64_t link_flows(const Space* space, const Rows* links, const double* weight, const double* change,
                              int64_t B, double* right) {
  const Space& s = *space;
  const int64_t d = s.d;
  std::vector<double> v(d), flow(B);
  for (int64_t i = 0; i < s.n; ++i) {
    const double* own = change + i * d * B;
    for (int64_t e = links->start[i]; e < links->start[i + 1]; ++e) {
      const int64_t j = links->target[e];
      const double* other = change + j * d * B;
      difference(s, i, j, v.data());
      std::fill(flow.begin(), flow.end(), 0.0);
      for (int64_t a = 0; a < d; ++a) {
        const double half = 0.5 * weight[e] * v[a];
        for (int64_t b = 0; b < B; ++b) flow[b] += half * (own[a * B + b] + other[a * B + b]);
      }
      for (int64_t b = 0; b < B; ++b) {
        right[j * B + b] += flow[b];
        right[i * B + b] -= flow[b];
      }
    }
  }
  return 0;
}
