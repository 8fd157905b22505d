// The normal equations of the predicted differences, and the loops of their bootstrap.

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
      difference<0>(s, i, j, v.data());
      for (int64_t a = 0; a < d; ++a)
        for (int64_t b = 0; b < B; ++b) out[a * B + b] += v[a] * xi[b];
      for (int64_t b = 0; b < B; ++b) sum[b] += xi[b];
    }
    for (int64_t a = 0; a < d; ++a)
      for (int64_t b = 0; b < B; ++b)
        out[a * B + b] = (scale[i] * out[a * B + b] - sum[b] * gradient[i * d + a]) / total[i];
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
      difference<0>(s, i, j, v.data());
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

struct Matrix {  // rows of a sparse matrix
  const int32_t* start;
  const int32_t* column;
  const double* value;
};

// For each unknown the one it is coupled to most, relative to that one's diagonal; itself where there is none.
extern "C" int64_t strongest_links(const Matrix* matrix, const double* diagonal, int64_t n, int64_t* link) {
  for (int64_t i = 0; i < n; ++i) {
    double best = 0;
    link[i] = i;
    for (int32_t p = matrix->start[i]; p < matrix->start[i + 1]; ++p) {
      const int64_t j = matrix->column[p];
      const double strength = -matrix->value[p] / std::sqrt(diagonal[j]);
      if (j != i && strength > best) { best = strength; link[i] = j; }
    }
  }
  return 0;
}

// The matrix between aggregates: `label` gives that of each unknown, `members` lists the unknowns of each, from
// `begin`. There is room for as many entries as the fine matrix has; gives how many are used.
extern "C" int64_t coarse_matrix(const Matrix* matrix, const int32_t* label, const int64_t* members,
                                 const int64_t* begin, int64_t count, int32_t* start, int32_t* column, double* value) {
  std::vector<int64_t> place(count, -1);
  int64_t used = 0;
  for (int64_t c = 0; c < count; ++c) {
    const int64_t first = used;
    start[c] = int32_t(used);
    for (int64_t m = begin[c]; m < begin[c + 1]; ++m)
      for (int32_t p = matrix->start[members[m]]; p < matrix->start[members[m] + 1]; ++p) {
        const int64_t other = label[matrix->column[p]];
        if (place[other] < first) {
          place[other] = used++;
          column[place[other]] = int32_t(other);
          value[place[other]] = 0;
        }
        value[place[other]] += matrix->value[p];
      }
  }
  start[count] = int32_t(used);
  return used;
}
