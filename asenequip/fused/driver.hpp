// The loop over centres: geometry in, energies, forces and virials out.

struct Arguments {
  int64_t centers, threads, num_types, intervals, pair_kind;
  const int64_t* ptr;        // (n+1) candidate edges of each centre
  const int32_t* neighbors;  // (z)
  const int32_t* shifts;     // (z, 3)
  const double* positions;   // (all, 3)
  const double* cells;       // (frames, 3, 3)
  const int32_t* frames;     // (n)
  const int32_t* types;      // (all)
  const T* weights;          // parameter block
  const Nonzero* nonzeros;   // of all layers, one after the other
  const int64_t* counts;     // of each layer
  const T* table;            // (pair of types, interval, degree + 1, ROW)
  const double* cutoffs;     // (pair of types)
  const double* norm;        // (types) 1 / sqrt(mean neighbours)
  const double* factor;      // (types) scale / sqrt(2 mean neighbours)
  const double* shift;       // (types)
  const double* pair;        // (pair of types, 4): parameters of the pair potential
  const double* pair_options;
  double* energies;          // (n)
  double* forces;            // (all, 3), zeroed by the caller
  double* virials;           // (n, 3, 3)
  double* last_layer;        // (n, HR): hidden units of the readout, summed over the edges of each centre; or null
};

static constexpr double TOUCHING = 1e-6;

// polynomial envelope in its factored form, and its slope
static void envelope(double x, int p, double& f, double& df) {
  if (x >= 1) { f = df = 0; return; }
  double s = p * (p + 1) / 2.0, ds = 0;
  for (int k = p - 2; k >= 0; --k) { ds = ds * x + s; s = s * x + (k + 1) * (k + 2) / 2.0; }
  const double m = 1 - x;
  f = m * m * m * s;
  df = m * m * (m * ds - 3 * s);
}

// energy of a directed edge and its slope
static double pair_energy(const Arguments& a, int64_t kind, double d, double cutoff, double& slope) {
  const double* p = a.pair + kind * 4;
  double f, df, e, de;
  envelope(d / cutoff, int(a.pair_options[0]), f, df);
  df /= cutoff;
  if (a.pair_kind == 1) {  // ZBL: p = 1/2 k Z Z, 1/a
    static const double amplitude[4] = {0.02817, 0.28022, 0.50986, 0.18175};
    static const double decay[4] = {0.20162, 0.40290, 0.94229, 3.19980};
    double s = 0, ds = 0;
    for (int k = 0; k < 4; ++k) {
      const double t = amplitude[k] * std::exp(-decay[k] * d * p[1]);
      s += t;
      ds -= decay[k] * p[1] * t;
    }
    e = p[0] * s / d;
    de = p[0] * (ds - s / d) / d;
  } else {  // Lennard-Jones: p = sigma, epsilon, delta; options: envelope, style, exponent
    const double n = a.pair_options[2], gap = d - p[2];
    if (a.pair_options[1] == 2) {
      e = 0.5 * p[1] * std::pow(p[0] * gap, -n);
      de = -n * e / gap;
    } else {
      const double s = std::pow(p[0] / gap, n);
      e = 2 * p[1] * (s * s - s);
      de = 2 * p[1] * (2 * s - 1) * (-n * s / gap);
      if (a.pair_options[1] == 1) {
        if (d < std::pow(2.0, 1.0 / n) + p[2]) e += p[1];
        else e = de = 0;
      }
    }
  }
  slope = de * f + e * df;
  return e * f;
}

// geometry of the edges of a centre that are within their cutoff; number of them, or -1 - edge for two atoms on one spot
static int64_t gather(const Arguments& a, int64_t n, Work& w) {
  const double* x = a.positions + 3 * n;
  const double* cell = a.cells + 9 * a.frames[n];
  const int64_t begin = a.ptr[n], end = a.ptr[n + 1], S = w.stride;
  int Z = 0;
  for (int64_t z = begin; z < end; ++z) {
    const int64_t other = a.neighbors[z];
    const double* y = a.positions + 3 * other;
    const int32_t* s = a.shifts + 3 * z;
    double r[3];
    for (int k = 0; k < 3; ++k) r[k] = y[k] - x[k];
    if (s[0] | s[1] | s[2])
      for (int k = 0; k < 3; ++k) r[k] += s[0] * cell[k] + s[1] * cell[3 + k] + s[2] * cell[6 + k];
    const int64_t kind = a.types[n] * a.num_types + a.types[other];
    const double square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2], cutoff = a.cutoffs[kind];
    if (!(square < cutoff * cutoff)) continue;
    if (square < TOUCHING * TOUCHING) return -1 - z;
    const double d = std::sqrt(square), place = d / cutoff * double(a.intervals);
    const int64_t interval = std::min(int64_t(place), a.intervals - 1);
    w.edge[Z] = z;
    w.length[Z] = d;
    w.row[Z] = (kind * a.intervals + interval) * (DEGREE + 1) * ROW;
    w.local[Z] = T(2 * (place - double(interval)) - 1);
    for (int k = 0; k < 3; ++k) w.dir[k * S + Z] = T(r[k] / d);
    ++Z;
  }
  return Z;
}

static void centre(const Arguments& a, const Couplings* couplings, int64_t n, int Z, Work& w, double* gradient) {
  const int S = w.stride, type = a.types[n];
  for (int z = Z; z % LANES; ++z) w.dir[z] = w.dir[S + z] = w.dir[2 * S + z] = 0;
  for (int z = 0; z < Z; z += LANES)
    harmonics(load(w.dir + z), load(w.dir + S + z), load(w.dir + 2 * S + z), w.y + z, S);
  for (int z = 0; z < Z; ++z) {
    const T* c = a.table + w.row[z];
    for (int k = 0; k < ROW; k += LANES) store(w.tab + z * ROW + k, polynomial(c + k, ROW, w.local[z]));
  }
  double energy = 0, virial[9] = {0};
  if (Z > 0) {
    const T norm = T(a.norm[type]);
    energy = a.factor[type] * forward(a.weights, couplings, norm, w, Z);
    if (a.last_layer)
      for (int z = 0; z < Z; ++z)
        for (int h = 0; h < HR; ++h) a.last_layer[n * HR + h] += double(w.hr[z * HR + h]);
    backward(a.weights, couplings, norm, T(a.factor[type]), w, Z);
    edge_gradient(a.table, w, Z);
  }
  for (int z = 0; z < Z; z += LANES) {
    V x = load(w.dir + z), y = load(w.dir + S + z), zz = load(w.dir + 2 * S + z), gx, gy, gz;
    harmonics_back(x, y, zz, w.gy + z, S, gx, gy, gz);
    for (int k = 0; k < LANES && z + k < Z; ++k) {
      const int at = z + k;
      const int64_t edge = w.edge[at], kind = type * a.num_types + a.types[a.neighbors[edge]];
      const double d = w.length[at], cutoff = a.cutoffs[kind];
      double slope = double(w.local[at]) * 2 * double(a.intervals) / cutoff;
      if (a.pair_kind) {
        double s;
        energy += pair_energy(a, kind, d, cutoff, s);
        slope += s;
      }
      const double u[3] = {x[k], y[k], zz[k]}, g[3] = {gx[k], gy[k], gz[k]};
      const double along = g[0] * u[0] + g[1] * u[1] + g[2] * u[2];
      double* out = gradient + 3 * (edge - a.ptr[n]);
      for (int i = 0; i < 3; ++i) out[i] = (g[i] - along * u[i]) / d + slope * u[i];
      for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) virial[3 * i + j] += d * u[i] * out[j];
    }
  }
  a.energies[n] = energy + a.shift[type];
  std::copy(virial, virial + 9, a.virials + 9 * n);
}

// Returns -1, or the edge whose two atoms are on one spot. Centres are worked on in blocks: first in parallel into a
// gradient per edge, then summed onto the atoms in the order of the edges, so that threads do not change a bit.
extern "C" int64_t run(const Arguments* arguments) {
  const Arguments& a = *arguments;
  Couplings couplings[CHAINS];
  const Nonzero* start = a.nonzeros;
  for (int k = 0; k < CHAINS; start += a.counts[k++]) couplings[k] = {start, a.counts[k]};
  constexpr int64_t BLOCK = 4096, GRAIN = 8;
  int64_t widest = 1;
  for (int64_t n = 0; n < a.centers; ++n) widest = std::max(widest, a.ptr[n + 1] - a.ptr[n]);
  const int64_t threads = std::max<int64_t>(1, std::min(a.threads, (a.centers + GRAIN - 1) / GRAIN));
  static thread_local std::vector<Work> works;
  if (int64_t(works.size()) < threads) works.resize(threads);
  std::vector<double> gradient;
  std::atomic<int64_t> wrong{-1};
  for (int64_t first = 0; first < a.centers; first += BLOCK) {
    const int64_t last = std::min(first + BLOCK, a.centers), base = a.ptr[first];
    gradient.assign(3 * (a.ptr[last] - base), 0.0);
    std::atomic<int64_t> next{first};
    auto work = [&](Work& w) {
      w.reserve(int(widest));
      for (int64_t start; (start = next.fetch_add(GRAIN)) < last;)
        for (int64_t n = start; n < std::min(start + GRAIN, last); ++n) {
          const int64_t Z = gather(a, n, w);
          if (Z < 0) { wrong = -1 - Z; return; }
          centre(a, couplings, n, int(Z), w, gradient.data() + 3 * (a.ptr[n] - base));
        }
    };
    std::vector<std::thread> others;
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(work, std::ref(works[t]));
    work(works[0]);
    for (auto& t : others) t.join();
    if (wrong >= 0) return wrong;
    for (int64_t n = first; n < last; ++n)
      for (int64_t z = a.ptr[n]; z < a.ptr[n + 1]; ++z)
        for (int k = 0; k < 3; ++k) {
          const double g = gradient[3 * (z - base) + k];
          a.forces[3 * n + k] += g;
          a.forces[3 * a.neighbors[z] + k] -= g;
        }
  }
  return -1;
}
