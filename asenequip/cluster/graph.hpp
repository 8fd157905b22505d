// Neighbourhoods: how far each sees one density, gradients, what they predict along edges, the normal equations.

// Neighbours in stretches of ranks: those of ranks up to last[r], and beyond last[r - 1], of point i stand at
// base[r * n + i] + rank. Rank 0 is the point itself.
struct Lists {
  const double* distances;
  const int32_t* indices;
  const int64_t* base;  // (stretches, n)
  const int64_t* last;  // (stretches)
  int64_t stretches;
  const int64_t* size;  // (n) neighbours, the point itself not counted
  int64_t n;
};

// The place of a rank, asked for in rising order.
struct Reader {
  const Lists& lists;
  int64_t stretch = 0;

  int64_t place(int64_t i, int64_t rank) {
    while (stretch + 1 < lists.stretches && rank > lists.last[stretch]) ++stretch;
    return lists.base[stretch * lists.n + i] + rank;
  }
};

static constexpr int64_t AHEAD = 16;  // ranks that are looked ahead for lists that will be too short

// Mark the lists that are too short for the test of point i at ranks from j on.
static void mark_short(const Lists& s, const Lists& r, int64_t i, int64_t j, int64_t stop, uint8_t* wanted) {
  Reader near{s};
  for (; j < stop; ++j) {
    const int64_t m = j > s.size[i] ? i : s.indices[near.place(i, j)];
    if (m != i && j - 1 <= r.size[m]) continue;
#pragma omp atomic write
    wanted[m] = 1;
    if (m == i) break;
  }
}

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
    Reader own{s}, near{s}, other{r};
    int64_t j = next[i];
    for (; j < limit; ++j) {
      const int64_t m = j > s.size[i] ? -1 : s.indices[near.place(i, j)];
      if (m < 0 || j - 1 > r.size[m]) {
        if (wanted) mark_short(s, r, i, j, std::min(j + AHEAD, limit), wanted);
        else k_star[i] = j - 1;
        break;
      }
      const double a = s.distances[own.place(i, j - 1)], b = r.distances[other.place(m, j - 1)];
      if (a > ratio[j - 1] * b || b > ratio[j - 1] * a) { k_star[i] = j - 1; break; }
    }
    if (j == limit) k_star[i] = limit - 1;
    next[i] = j;
    open += k_star[i] == 0;
  }
  return open;
}

// The first of the neighbours 1 .. counts of each point whose value lies in an interval, or outside it, or -1.
extern "C" int64_t first_neighbour(const Lists* lists, const int64_t* points, const int64_t* counts,
                                   const double* value, const double* low, const double* high, int64_t outside,
                                   int64_t* found, int64_t n) {
  for (int64_t p = 0; p < n; ++p) {
    Reader reader{*lists};
    found[p] = -1;
    for (int64_t rank = 1; rank <= counts[p]; ++rank) {
      const int32_t near = lists->indices[reader.place(points[p], rank)];
      const double v = value[near];
      if ((v >= low[p] && v <= high[p]) != bool(outside)) { found[p] = near; break; }
    }
  }
  return 0;
}

// For each marked point the highest of the points that have it in their neighbourhood, if higher than itself.
extern "C" int64_t parents(const Lists* lists, const int64_t* k_star, const double* level, const uint8_t* marked,
                           int64_t* found) {
  for (int64_t i = 0; i < lists->n; ++i) {
    Reader reader{*lists};
    for (int64_t rank = 1; rank <= k_star[i]; ++rank) {
      const int32_t j = lists->indices[reader.place(i, rank)];
      if (marked[j] && level[i] > level[j] && (found[j] < 0 || level[i] > level[found[j]])) found[j] = i;
    }
  }
  return 0;
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

// Loops over coordinates are unrolled where their number D is small; D = 0 reads it.
template <int D>
static inline int64_t features(int64_t d) { return D ? D : d; }

template <int D>
static inline void difference(const Space& s, int64_t from, int64_t to, double* v) {
  const int64_t d = features<D>(s.d);
  for (int64_t a = 0; a < d; ++a) v[a] = s.x[to * d + a] - s.x[from * d + a];
  if (s.period)
    for (int64_t a = 0; a < s.d; ++a)
      if (s.period[a] > 0) v[a] -= s.period[a] * std::rint(v[a] / s.period[a]);
}

template <int D>
static inline double dot(const double* a, const double* b, int64_t given) {
  const int64_t d = features<D>(given);
  double s0 = 0, s1 = 0;
  int64_t i = 0;
  for (; i + 2 <= d; i += 2) { s0 += a[i] * b[i]; s1 += a[i + 1] * b[i + 1]; }
  return i < d ? s0 + s1 + a[i] * b[i] : s0 + s1;
}

struct Shifts {
  double* gradient;  // (n, d)
  double* scale;     // (n) c
  double* total;     // (n) points averaged over, m
  double* spread;    // (n) mean squared distance
  double* packed;    // (n, d (d + 1) / 2) covariances by upper triangles, off-diagonal entries doubled, or null
};

template <int D>
static void shift_point(const Space& s, const Rows& hoods, double floor, const Shifts& out, int64_t i, double* v,
                        double* second) {
  const int64_t d = features<D>(s.d), pairs = d * (d + 1) / 2;
  double* g = out.gradient + i * d;
  std::fill_n(g, d, 0.0);
  if (out.packed) std::fill_n(second, pairs, 0.0);
  double m = s.counts ? s.counts[i] - 1 : 0, squares = 0, square = 0;
  const int64_t first = hoods.start[i], last = hoods.start[i + 1];
  for (int64_t e = first; e < last; ++e) {
    const int64_t j = hoods.target[e];
    difference<D>(s, i, j, v);
    const double w = s.counts ? s.counts[j] : 1.0;
    square = dot<D>(v, v, d);
    squares += square;
    m += w;
    for (int64_t a = 0; a < d; ++a) g[a] += w * v[a];
    if (!out.packed) continue;
    double* sum = second;
    for (int64_t a = 0; a < d; ++a) {
      const double wa = w * v[a];
      for (int64_t b = a; b < d; ++b) *sum++ += wa * v[b];
    }
  }
  const double c = (s.dimension + 2) / square;
  for (int64_t a = 0; a < d; ++a) g[a] *= c / m;
  out.scale[i] = c;
  out.total[i] = m;
  out.spread[i] = squares / double(last - first);
  if (!out.packed) return;
  double* covariance = out.packed + i * pairs;
  for (int64_t a = 0, p = 0; a < d; ++a)
    for (int64_t b = a; b < d; ++b, ++p) {
      const double value = (second[p] * c * c / m - g[a] * g[b]) * (m + 1) / (m * m);
      covariance[p] = a == b ? value + floor : 2 * value;
    }
}

// Call the variant of a template for the number of coordinates at hand.
#define FOR_FEATURES(d, call) \
  switch (d) { \
    case 2: { constexpr int D = 2; call; break; } \
    case 3: { constexpr int D = 3; call; break; } \
    case 4: { constexpr int D = 4; call; break; } \
    case 5: { constexpr int D = 5; call; break; } \
    case 6: { constexpr int D = 6; call; break; } \
    default: { constexpr int D = 0; call; } \
  }

// Gradients by the mean shift of neighbours.
extern "C" int64_t mean_shifts(const Space* space, const Rows* hoods, double floor, const Shifts* out) {
  const Space& s = *space;
#pragma omp parallel num_threads(int(s.threads))
  {
    std::vector<double> v(s.d), second(out->packed ? s.d * (s.d + 1) / 2 : 0);
#pragma omp for schedule(dynamic, 64)
    for (int64_t i = 0; i < s.n; ++i)
      FOR_FEATURES(s.d, (shift_point<D>(s, *hoods, floor, *out, i, v.data(), second.data())))
  }
  return 0;
}

// v^T C v from packed covariances
template <int D>
static inline double packed_form(const double* c, const double* v, int64_t given) {
  const int64_t d = features<D>(given);
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
    difference<0>(s, i, j, work);
    const double p = dot<0>(work, v, s.d);
    sum += (s.counts ? s.counts[j] : 1.0) * p * p;
  }
  const double m = g.total[i];
  return (g.scale[i] * g.scale[i] / m * sum - slope * slope) * (m + 1) / (m * m) + g.floor * square;
}

struct Predicted {
  double* difference;  // (links)
  double* variance;
  double* at_source;   // deviations of g . v at both ends, with its sign
  double* at_target;
  double* overlap;     // Jaccard index
};

template <int D>
static void predict_point(const Space& s, const Rows& hoods, const Rows& links, const Slopes& g, const int64_t* k_star,
                          const int32_t* common, const Predicted& out, int64_t i, double* v, double* work) {
  const int64_t d = features<D>(s.d), pairs = d * (d + 1) / 2;
  for (int64_t e = links.start[i]; e < links.start[i + 1]; ++e) {
    const int64_t j = links.target[e];
    difference<D>(s, i, j, v);
    const double a = dot<D>(g.gradient + i * d, v, d), b = dot<D>(g.gradient + j * d, v, d);
    double va, vb;
    if (g.packed) {
      va = packed_form<D>(g.packed + i * pairs, v, d);
      vb = packed_form<D>(g.packed + j * pairs, v, d);
    } else {
      const double square = dot<D>(v, v, d);
      va = gram_form(s, hoods, g, i, v, a, square, work);
      vb = gram_form(s, hoods, g, j, v, b, square, work);
    }
    va = va > 0 ? va : 0;
    vb = vb > 0 ? vb : 0;
    const double p = double(common[e]) / double(k_star[i] + k_star[j] - common[e]);
    const double da = a == 0 ? 0 : std::copysign(std::sqrt(va), a), db = b == 0 ? 0 : std::copysign(std::sqrt(vb), b);
    out.difference[e] = 0.5 * (a + b);
    out.variance[e] = 0.25 * (va + vb + 2 * p * da * db);
    out.at_source[e] = da;
    out.at_target[e] = db;
    out.overlap[e] = p;
  }
}

// What the gradients predict along each link; `common` counts the points both neighbourhoods share.
extern "C" int64_t predict_links(const Space* space, const Rows* hoods, const Rows* links, const Slopes* slopes,
                                 const int64_t* k_star, const int32_t* common, const Predicted* out) {
  const Space& s = *space;
#pragma omp parallel num_threads(int(s.threads))
  {
    std::vector<double> v(s.d), work(s.d);
#pragma omp for schedule(dynamic, 64)
    for (int64_t i = 0; i < s.n; ++i)
      FOR_FEATURES(s.d, (predict_point<D>(s, *hoods, *links, *slopes, k_star, common, *out, i, v.data(), work.data())))
  }
  return 0;
}
