// The pair style "asenequip" of LAMMPS: hands a subdomain (owned atoms, ghosts, full neighbour list) to the process
// that loaded it and takes energies, forces and virials back. The forces on ghosts travel to their owners with LAMMPS'
// own reverse communication. Built against the headers that LAMMPS installs.

#include "atom.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

extern "C" {

// What pair_style and pair_coeff said, and where the answer goes.
struct Opening {
  const char *options;     // words of pair_style
  const char *model;       // file of the potential
  const char *elements;    // of the atom types in order, "NULL" for those of other pair styles
  int64_t handle;          // out: of the opened potential
  double *cutoffs;         // out: (types, types) Angstrom
  char message[2048];      // out: what went wrong
};

// A subdomain: centres are the atoms [0, centers); ghosts follow.
struct Subdomain {
  int64_t handle, centers, atoms;
  int64_t fresh;            // 1 where atoms and list are other than in the last call
  const int64_t *ptr;       // (centers + 1)
  const int32_t *neighbors;
  const int32_t *types;     // (atoms), from 1
  const double *positions;  // (atoms, 3)
  double *forces;           // (atoms, 3), added to
  double *energies;         // (centers)
  double *virials;          // (centers, 3, 3): sum of r (x) dE/dr over the edges of each centre
  char message[2048];
};

typedef int (*OpenCallback)(Opening *);
typedef int (*ComputeCallback)(Subdomain *);
typedef void (*CloseCallback)(int64_t);
}

namespace {

struct Callbacks {
  OpenCallback open;
  ComputeCallback compute;
  CloseCallback close;
};

std::map<void *, Callbacks> &connections()
{
  static std::map<void *, Callbacks> all;
  return all;
}

std::string join(int count, char **words)
{
  std::string text;
  for (int k = 0; k < count; ++k) text += (k ? " " : "") + std::string(words[k]);
  return text;
}

}    // namespace

namespace LAMMPS_NS {

class PairAsenequip : public Pair {
 public:
  explicit PairAsenequip(LAMMPS *lmp) : Pair(lmp)
  {
    manybody_flag = 1;
    one_coeff = 1;
    single_enable = 0;
    restartinfo = 0;
    no_virial_fdotr_compute = 1;    // the virial of the centres is exact as it is
    centroidstressflag = CENTROID_NOTAVAIL;
    unit_convert_flag = 0;
  }

  ~PairAsenequip() override
  {
    close();
    if (copymode) return;
    if (allocated) {
      memory->destroy(setflag);
      memory->destroy(cutsq);
    }
  }

  void settings(int narg, char **arg) override { options = join(narg, arg); }

  void coeff(int narg, char **arg) override
  {
    const int types = atom->ntypes;
    if (narg != 3 + types)
      error->all(FLERR, "Pair style asenequip takes 'pair_coeff * * FILE' and one element for each of the " +
                            std::to_string(types) + " atom types");
    if (!allocated) {
      memory->create(setflag, types + 1, types + 1, "pair:setflag");
      memory->create(cutsq, types + 1, types + 1, "pair:cutsq");
      map = new int[types + 1];
      allocated = 1;
    }
    map_element2type(narg - 3, arg + 3);
    close();
    Opening opening = {};
    const std::string elements = join(types, arg + 3);
    cutoffs.assign(static_cast<size_t>(types) * types, 0.0);
    opening.options = options.c_str();
    opening.model = arg[2];
    opening.elements = elements.c_str();
    opening.cutoffs = cutoffs.data();
    int failed = callbacks().open(&opening), any = 0;
    MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, world);
    if (any) error->all(FLERR, failed ? std::string(opening.message) : "The potential did not open on another rank");
    handle = opening.handle;
  }

  void init_style() override
  {
    if (strcmp(update->unit_style, "metal") != 0) error->all(FLERR, "Pair style asenequip needs 'units metal'");
    if (!force->newton_pair)
      error->all(FLERR, "Pair style asenequip needs 'newton on': forces on ghosts travel to their owners");
    if (atom->molecular != Atom::ATOMIC)
      for (int k = 1; k < 4; ++k)
        if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
          error->all(FLERR, "Pair style asenequip needs bonded neighbours in its list: 'special_bonds lj/coul 1 1 1'");
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }

  double init_one(int i, int j) override
  {
    if (setflag[i][j] == 0) error->all(FLERR, "Not all pair coefficients of pair style asenequip are set");
    const int types = atom->ntypes;
    const double there = cutoffs[(i - 1) * types + j - 1], back = cutoffs[(j - 1) * types + i - 1];
    return there > back ? there : back;
  }

  void compute(int eflag, int vflag) override
  {
    ev_init(eflag, vflag);
    Subdomain domain = {};
    domain.centers = atom->nlocal;
    domain.atoms = atom->nlocal + atom->nghost;
    if (neighbor->ago == 0 || ptr.size() != static_cast<size_t>(domain.centers) + 1 || known != domain.atoms) {
      read_list();
      known = domain.atoms;
      domain.fresh = 1;
    }
    if (domain.centers == 0) return;
    domain.handle = handle;
    domain.ptr = ptr.data();
    domain.neighbors = neighbors.data();
    domain.types = atom->type;
    domain.positions = atom->x[0];
    domain.forces = atom->f[0];
    energies.resize(domain.centers);
    virials.resize(9 * domain.centers);
    domain.energies = energies.data();
    domain.virials = virials.data();
    if (callbacks().compute(&domain)) error->one(FLERR, std::string(domain.message));
    tally();
  }

  double memory_usage() override
  {
    return Pair::memory_usage() + 8.0 * (ptr.capacity() + energies.capacity() + virials.capacity()) +
        4.0 * neighbors.capacity();
  }

 private:
  std::string options;
  int64_t handle = -1, known = -1;
  std::vector<double> cutoffs, energies, virials;
  std::vector<int64_t> ptr;
  std::vector<int32_t> neighbors;

  const Callbacks &callbacks()
  {
    auto found = connections().find(lmp);
    if (found == connections().end())
      error->all(FLERR, "Pair style asenequip has no evaluator: start LAMMPS with 'asenequip lammps' or open_lammps");
    return found->second;
  }

  void close()
  {
    auto found = connections().find(lmp);
    if (handle >= 0 && found != connections().end()) found->second.close(handle);
    handle = -1;
  }

  // The list of LAMMPS as rows by centre; rows of atoms that are not in the list stay empty.
  void read_list()
  {
    ptr.assign(static_cast<size_t>(atom->nlocal) + 1, 0);
    for (int k = 0; k < list->inum; ++k) ptr[list->ilist[k] + 1] = list->numneigh[list->ilist[k]];
    for (int i = 0; i < atom->nlocal; ++i) ptr[i + 1] += ptr[i];
    neighbors.resize(ptr.back());
    for (int k = 0; k < list->inum; ++k) {
      const int i = list->ilist[k], *row = list->firstneigh[i];
      int32_t *out = neighbors.data() + ptr[i];
      for (int z = 0; z < list->numneigh[i]; ++z) out[z] = row[z] & NEIGHMASK;
    }
  }

  void tally()
  {
    static const int first[6] = {0, 4, 8, 1, 2, 5}, second[6] = {0, 4, 8, 3, 6, 7};    // xx yy zz xy xz yz
    for (int i = 0; i < atom->nlocal; ++i) {
      if (eflag_global) eng_vdwl += energies[i];
      if (eflag_atom) eatom[i] += energies[i];
      for (int k = 0; vflag_either && k < 6; ++k) {
        const double value = -0.5 * (virials[9 * i + first[k]] + virials[9 * i + second[k]]);
        if (vflag_global) virial[k] += value;
        if (vflag_atom) vatom[i][k] += value;
      }
    }
  }
};

}    // namespace LAMMPS_NS

// -- registration: the plugin interface of LAMMPS, https://docs.lammps.org/Developer_plugins.html ---------------------

namespace {

struct Plugin {
  const char *version, *style, *name, *info, *author;
  void *(*create)(void *);
  void *handle;
};

void *create(void *lmp)
{
  return new LAMMPS_NS::PairAsenequip(static_cast<LAMMPS_NS::LAMMPS *>(lmp));
}

}    // namespace

extern "C" {

void lammpsplugin_init(void *lmp, void *handle, void *registration)
{
  const char *version = static_cast<LAMMPS_NS::LAMMPS *>(lmp)->version;
  Plugin plugin = {version, "pair", "asenequip", "pair style asenequip", "asenequip", create, handle};
  reinterpret_cast<void (*)(Plugin *, void *)>(registration)(&plugin, lmp);
}

void asenequip_connect(void *lmp, OpenCallback open, ComputeCallback compute, CloseCallback close)
{
  connections()[lmp] = {open, compute, close};
}
}
