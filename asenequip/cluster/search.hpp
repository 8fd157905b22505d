// Exact nearest neighbours: leaves are scanned in float32, and what passes is measured in float64.

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

// lanes of a leaf within the bound of a query, and the squared distances of all where there are any
static inline uint64_t scan_leaf(const Lanes* column, const float* query, int64_t d, float bound, Lanes* squares) {
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
    if (mask == 0) return 0;
    if (a == d) {
      std::copy_n(sums, LEAF / 16, squares);
      return mask;
    }
  }
}

// not inlined, so that rounding is the same wherever it is asked for
__attribute__((noinline)) static double exact_square(const double* a, const double* b, int64_t d) {
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

// A query and the candidates for its neighbours: the nearest, or the nearest beyond one that is known.
struct Query {
  int64_t row, self;         // row of the output; its own index among the points, or -1
  int64_t k;                 // points wanted, itself counted
  const double* exact;       // (d) its coordinates
  const double* turned;      // (d) the same along principal axes
  std::vector<float> local;  // (d) relative to the middle
  double margin;             // by how much float32 and the turn may get a distance wrong
  float near = FLT_MAX;      // squared float32 distance that at least k candidates have, once there are so many
  float bound = FLT_MAX;     // squared float32 distance beyond which no point is worth a look
  Candidate last{-1, -1};    // the neighbour beyond which the search goes on, if any
  float inside = -1;         // squared float32 distance up to which every point is known
  float outside = -1;        // squared float32 distance beyond which none is
  std::vector<float> square;
  std::vector<int32_t> place;
  int64_t held = 0;

  Query(int64_t row, int64_t self, int64_t k, const double* exact, const double* turned, const Shelf& shelf)
      : row(row), self(self), k(k), exact(exact), turned(turned), local(shelf.d) {
    double sum = 0;
    for (int64_t a = 0; a < shelf.d; ++a) {
      const double v = turned[a] - shelf.middle[a];
      local[a] = float(v);
      sum += v * v;
    }
    margin = 1.1 * HALF_ULP * (std::sqrt(sum) + shelf.longest) + 1e-12 * shelf.largest;
    square.resize(room() + LEAF);
    place.resize(room() + LEAF);
  }

  int64_t room() const { return k + std::max<int64_t>(k / 4, 24); }

  double relative() const { return 1 + (double(local.size()) + 8) * HALF_ULP; }

  void begin_beyond(double square_of_last, int32_t index) {
    last = {square_of_last, index};
    const double radius = std::sqrt(square_of_last);
    const double low = std::max(0.0, radius - 2 * margin) / relative(), high = radius * relative() + 2 * margin;
    if (low > 0) inside = float(low * low / relative());
    outside = float(high * high * relative());
  }

  // take the lanes of a mask
  void add(uint64_t mask, const Lanes* squares, int64_t first) {
    if (held + LEAF > int64_t(square.size())) {  // many at one distance
      square.resize(2 * square.size());
      place.resize(2 * place.size());
    }
#ifdef __AVX512F__
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int v = 0; v < LEAF / 16; ++v, mask >>= 16) {
      const __mmask16 part = __mmask16(mask);
      const __m512i here = _mm512_add_epi32(lane, _mm512_set1_epi32(int32_t(first + 16 * v)));
      _mm512_storeu_ps(&square[held], _mm512_maskz_compress_ps(part, __m512(squares[v])));
      _mm512_storeu_si512(&place[held], _mm512_maskz_compress_epi32(part, here));
      held += __builtin_popcount(part);
    }
#else
    const float* value = reinterpret_cast<const float*>(squares);
    for (; mask; mask &= mask - 1) {
      const int lane = __builtin_ctzll(mask);
      square[held] = value[lane];
      place[held++] = int32_t(first + lane);
    }
#endif
    if (held >= (near < FLT_MAX ? room() : k)) trim(8);
  }

  // find by bisection a distance that at least k candidates are within, and drop what cannot be among the k nearest
  void trim(int steps) {
    if (held < k) return;
    float low = 0, high = near < FLT_MAX ? near : *std::max_element(square.begin(), square.begin() + held);
    for (int step = 0; step < steps; ++step) {
      const float middle = 0.5f * (low + high);
      int32_t within = 0;
      for (int64_t i = 0; i < held; ++i) within += square[i] <= middle;
      (within >= k ? high : low) = middle;
      if (within == k) break;
    }
    near = high;
    const double radius = std::sqrt(double(high)) * relative() + 2 * margin;
    bound = float(std::min(double(FLT_MAX), radius * radius * relative()));
    int64_t kept = 0;
    for (int64_t i = 0; i < held; ++i) {
      const float value = square[i];
      square[kept] = value;
      place[kept] = place[i];
      kept += value <= bound;
    }
    held = kept;
  }
};

// Points ready to be searched.
struct Index {
  const double* points;         // (n, d), kept by the caller
  const double* space;          // (n, d) the same, turned to principal axes, kept by the caller
  int64_t n, d;
  Leaves tree;
  Shelf shelf;
  std::vector<double> ordered;  // (n, d) points leaf by leaf
  std::vector<int64_t> place;   // (n) where each point stands there

  Index(const double* points, const double* space, int64_t n, int64_t d)
      : points(points), space(space), n(n), d(d), tree(space, n, d), shelf(tree, space), ordered(n * d), place(n) {
    for (int64_t p = 0; p < n; ++p) {
      place[tree.order[p]] = p;
      std::copy_n(points + tree.order[p] * d, d, &ordered[p * d]);
    }
  }
};

struct Search {
  const Index* index;
  const double* queries;  // (q, d) or null where the queries are points
  const double* turned;   // (q, d) or null
  int64_t count;          // q
  const int64_t* rows;    // (q) points that are asked for, or null
  const int32_t* last;    // (q) the neighbour of each row beyond which the search goes on, or null
  const int64_t* k;       // (q) neighbours wanted
  const int64_t* offset;  // (q) where each answer starts
  double* distances;
  int32_t* indices;
  int64_t threads;
};

// the lanes of a mask that are beyond the neighbour from which the search goes on
static uint64_t beyond(const Index& index, const Query& query, uint64_t mask, const Lanes* squares, int64_t first) {
  mask &= ~hits(squares, query.inside);
  for (uint64_t doubt = mask & hits(squares, query.outside); doubt; doubt &= doubt - 1) {
    const int64_t place = first + __builtin_ctzll(doubt);
    const Candidate one = {exact_square(&index.ordered[place * index.d], query.exact, index.d),
                           int32_t(index.tree.order[place])};
    if (!(query.last < one) || one.index == query.self) mask &= ~(doubt & -doubt);
  }
  return mask;
}

// one leaf, for every query of a group
static void visit(const Index& index, int64_t leaf, double distance, std::vector<Query>& group) {
  const int64_t d = index.d, first = index.tree.begin[leaf], size = index.tree.begin[leaf + 1] - first;
  const uint64_t present = size == LEAF ? ~0ull : (1ull << size) - 1;
  const Lanes* column = &index.shelf.scan[leaf * d * (LEAF / 16)];
  Lanes squares[LEAF / 16];
  for (Query& query : group) {
    if (distance > query.bound) continue;
    uint64_t mask = scan_leaf(column, query.local.data(), d, query.bound, squares) & present;
    if (mask && query.last.index >= 0) mask = beyond(index, query, mask, squares, first);
    if (mask) query.add(mask, squares, first);
  }
}

// Work arrays of a thread.
struct Work {
  std::vector<Candidate> found;
  std::vector<int32_t> place, begin;
  std::vector<double> gap, reach;
};

// Put the candidates of a query in the order of their float32 distances, nearly, by one counting sort of the bits.
static void sort_roughly(const Query& query, Work& work) {
  const int64_t n = query.held;
  const uint32_t* bits = reinterpret_cast<const uint32_t*>(query.square.data());
  uint32_t low = ~0u, high = 0;
  for (int64_t i = 0; i < n; ++i) {
    low = std::min(low, bits[i]);
    high = std::max(high, bits[i]);
  }
  int shift = 0;
  while (int64_t((high - low) >> shift) > 2 * n) ++shift;
  const int64_t buckets = int64_t((high - low) >> shift) + 1;
  work.begin.assign(buckets + 1, 0);
  work.place.resize(n);
  int32_t* begin = work.begin.data();
  for (int64_t i = 0; i < n; ++i) ++begin[(bits[i] - low) >> shift];
  int32_t sum = 0;
  for (int64_t b = 0; b <= buckets; ++b) {
    const int32_t count = begin[b];
    begin[b] = sum;
    sum += count;
  }
  for (int64_t i = 0; i < n; ++i) work.place[begin[(bits[i] - low) >> shift]++] = query.place[i];
}

// Sort what is nearly in order; where it is not, sort in full.
static void sort_nearly_sorted(std::vector<Candidate>& found) {
  int64_t moves = 8 * int64_t(found.size());
  for (size_t i = 1; i < found.size(); ++i) {
    const Candidate one = found[i];
    size_t j = i;
    for (; j > 0 && one < found[j - 1]; --j) found[j] = found[j - 1];
    found[j] = one;
    moves -= int64_t(i - j);
    if (moves < 0) return std::sort(found.begin(), found.end());
  }
}

// measure the candidates exactly and write the nearest
static void answer(const Search& s, Query& query, Work& work) {
  const Index& index = *s.index;
  query.trim(24);
  sort_roughly(query, work);
  std::vector<Candidate>& found = work.found;
  found.resize(query.held);
  size_t held = 0;
  for (int64_t i = 0; i < query.held; ++i) {
    const int32_t place = work.place[i], point = int32_t(index.tree.order[place]);
    found[held] = {exact_square(&index.ordered[place * index.d], query.exact, index.d), point};
    held += point != query.self;
  }
  found.resize(held);
  sort_nearly_sorted(found);
  double* distances = s.distances + s.offset[query.row];
  int32_t* indices = s.indices + s.offset[query.row];
  int64_t wanted = query.k;
  if (query.self >= 0 && query.last.index < 0) {
    *distances++ = 0;
    *indices++ = int32_t(query.self);
    --wanted;
  }
  for (int64_t i = 0; i < wanted; ++i) {
    distances[i] = std::sqrt(found[i].square);
    indices[i] = found[i].index;
  }
}

static void search_group(const Search& s, std::vector<Query>& group, Work& work) {
  struct Near { double distance; int32_t leaf; bool operator<(const Near& o) const { return distance < o.distance; } };
  const Shelf& shelf = s.index->shelf;
  const int64_t leaves = shelf.leaves;
  // squares of the least and the largest distance between the boxes of the group and of each leaf
  std::vector<double>&gap = work.gap, &reach = work.reach;
  gap.assign(leaves, 0);
  reach.assign(leaves, 0);
  int64_t most = 0;
  double known = INFINITE;  // every query knows all points this near
  for (const Query& query : group) {
    most = std::max(most, query.k);
    known = std::min(known, query.last.square);
  }
  for (int64_t a = 0; a < shelf.d; ++a) {
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
      t = std::max(highs[l] - low, high - lows[l]);
      reach[l] += t * t;
    }
  }
  std::vector<Near> near;
  near.reserve(leaves);
  // the turn to principal axes rounds: a little less is a safe bound
  const double slack = 1e-12 * shelf.largest;
  for (int64_t l = 0; l < leaves; ++l) {
    if (reach[l] * (1 + 1e-12) + slack * (slack + std::sqrt(reach[l])) * 4 < known) continue;
    const double t = std::max(0.0, std::sqrt(gap[l]) * (1 - 1e-12) - slack);
    near.push_back({t * t, int32_t(l)});
  }
  const int64_t start = std::min(int64_t(near.size()), 2 + 3 * most / (2 * LEAF));
  auto closest = [&](int64_t from, int64_t to) {
    std::sort(near.begin() + from, near.begin() + to, [](const Near& a, const Near& b) {
      return a.distance < b.distance || (a.distance == b.distance && a.leaf < b.leaf);
    });
    double worst = INFINITE;
    for (int64_t i = from; i < to; ++i) {
      worst = 0;
      for (const Query& query : group) worst = std::max(worst, double(query.bound));
      if (near[i].distance > worst) return worst;
      visit(*s.index, near[i].leaf, near[i].distance, group);
    }
    worst = 0;
    for (const Query& query : group) worst = std::max(worst, double(query.bound));
    return worst;
  };
  std::nth_element(near.begin(), near.begin() + (start - 1), near.end());
  const double worst = closest(0, start);
  const auto end = std::partition(near.begin() + start, near.end(), [=](const Near& a) { return a.distance <= worst; });
  closest(start, end - near.begin());
  for (Query& query : group) answer(s, query, work);
}

// order of points near in space: (n)
extern "C" int64_t spatial_order(const double* x, int64_t n, int64_t d, int64_t* order) {
  const Leaves tree(x, n, d);
  std::copy(tree.order.begin(), tree.order.end(), order);
  return 0;
}

extern "C" int64_t open_index(const double* points, const double* space, int64_t n, int64_t d) {
  return reinterpret_cast<int64_t>(new Index(points, space, n, d));
}

extern "C" int64_t close_index(Index* index) {
  delete index;
  return 0;
}

// the queries of one group, from their order in space
static void gather_group(const Search& s, const std::vector<int64_t>& turn, int64_t g, std::vector<Query>& group) {
  const Index& index = *s.index;
  const int64_t d = index.d;
  group.clear();
  for (int64_t i = g * GROUP; i < std::min(s.count, (g + 1) * GROUP); ++i) {
    const int64_t row = turn[i], self = s.queries ? -1 : s.rows[row];
    const double* exact = s.queries ? s.queries + row * d : index.points + self * d;
    const double* turned = s.queries ? s.turned + row * d : index.space + self * d;
    group.emplace_back(row, self, s.k[row] + (s.queries || s.last ? 0 : 1), exact, turned, index.shelf);
    if (s.last) group.back().begin_beyond(exact_square(index.points + s.last[row] * d, exact, d), s.last[row]);
  }
}

extern "C" int64_t nearest(const Search* given) {
  const Search& s = *given;
  const Index& index = *s.index;
  std::vector<int64_t> turn(s.count);
  for (int64_t i = 0; i < s.count; ++i) turn[i] = i;
  if (s.queries)
    turn = Leaves(s.turned, s.count, index.d).order;
  else
    std::sort(turn.begin(), turn.end(),
              [&](int64_t a, int64_t b) { return index.place[s.rows[a]] < index.place[s.rows[b]]; });
  const int64_t groups = (s.count + GROUP - 1) / GROUP;
#pragma omp parallel num_threads(int(s.threads))
  {
    Work work;
    std::vector<Query> group;
#pragma omp for schedule(dynamic, 4)
    for (int64_t g = 0; g < groups; ++g) {
      gather_group(s, turn, g, group);
      search_group(s, group, work);
    }
  }
  return 0;
}
