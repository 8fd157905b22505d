// Neighbour lists of small structures: every pair, and of each pair only the images that can be within reach.

struct Structures {
  int64_t count, capacity;   // structures; edges that fit
  double cutoff;
  const int64_t* starts;     // (count+1) first atom of each
  const double* positions;   // (n, 3)
  const double* cells;       // (count, 3, 3), of full rank where anything is periodic
  const uint8_t* periodic;   // (count, 3)
  int64_t* ptr;              // (n+1) edges of each atom
  int32_t* neighbors;        // (capacity)
  int32_t* shifts;           // (capacity, 3)
  int32_t* touching;         // (count, 2) two atoms on one spot, or -1
};

// columns are the reciprocal vectors: fractional coordinates are x @ inverse
static void invert(const double* c, double* inverse) {
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      const int a = (j + 1) % 3, b = (j + 2) % 3, p = (i + 1) % 3, q = (i + 2) % 3;
      inverse[3 * i + j] = c[3 * a + p] * c[3 * b + q] - c[3 * a + q] * c[3 * b + p];
    }
  const double volume = c[0] * inverse[0] + c[1] * inverse[3] + c[2] * inverse[6];
  for (int k = 0; k < 9; ++k) inverse[k] /= volume;
}

// edges of one structure, by centre, neighbour and shift, from edge z on; where the next one goes, or -1 if they do not fit
static int64_t list_one(const Structures& s, int64_t f, int64_t z) {
  const double* cell = s.cells + 9 * f;
  const uint8_t* periodic = s.periodic + 3 * f;
  const int64_t first = s.starts[f], last = s.starts[f + 1];
  double inverse[9] = {0}, reach[3] = {0};
  if (periodic[0] || periodic[1] || periodic[2]) invert(cell, inverse);
  for (int k = 0; k < 3; ++k)
    reach[k] = s.cutoff * std::sqrt(inverse[k] * inverse[k] + inverse[3 + k] * inverse[3 + k] + inverse[6 + k] * inverse[6 + k]);
  s.touching[2 * f] = s.touching[2 * f + 1] = -1;
  for (int64_t i = first; i < last; ++i) {
    s.ptr[i] = z;
    for (int64_t j = first; j < last; ++j) {
      double d[3];
      int low[3] = {0}, high[3] = {0};
      for (int k = 0; k < 3; ++k) d[k] = s.positions[3 * j + k] - s.positions[3 * i + k];
      for (int k = 0; k < 3; ++k) {
        if (!periodic[k]) continue;
        const double place = d[0] * inverse[k] + d[1] * inverse[3 + k] + d[2] * inverse[6 + k];
        low[k] = int(std::ceil(-reach[k] - place));
        high[k] = int(std::floor(reach[k] - place));
      }
      for (int a = low[0]; a <= high[0]; ++a)
        for (int b = low[1]; b <= high[1]; ++b)
          for (int c = low[2]; c <= high[2]; ++c) {
            if (i == j && !(a | b | c)) continue;
            double square = 0;
            for (int k = 0; k < 3; ++k) {
              const double r = d[k] + a * cell[k] + b * cell[3 + k] + c * cell[6 + k];
              square += r * r;
            }
            if (!(square < s.cutoff * s.cutoff)) continue;
            if (square < TOUCHING * TOUCHING) {
              if (s.touching[2 * f] < 0) s.touching[2 * f] = int32_t(i - first), s.touching[2 * f + 1] = int32_t(j - first);
              continue;
            }
            if (z == s.capacity) return -1;
            s.neighbors[z] = int32_t(j);
            s.shifts[3 * z] = a, s.shifts[3 * z + 1] = b, s.shifts[3 * z + 2] = c;
            ++z;
          }
    }
  }
  s.ptr[last] = z;
  return z;
}

// How many of the structures, from the first on, fit.
extern "C" int64_t list(const Structures* structures) {
  int64_t z = 0;
  structures->ptr[0] = 0;
  for (int64_t f = 0; f < structures->count; ++f) {
    z = list_one(*structures, f, z);
    if (z < 0) return f;
  }
  return structures->count;
}
