#include "tests/gpu/emulator/device.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gpu/kernels/tensor_map.h"

namespace attn::gpu {

EmulatedIndex threadIdx;
EmulatedIndex blockIdx;
EmulatedIndex gridDim;
alignas(1024) unsigned char memory[kEmulatedShared];

namespace emulator {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;

/// Threads that wait until `expected` have come.
struct Meeting {
  int come = 0;
  std::vector<int> waiting;
};
struct Barrier {
  int count = 0;
  int pending = 0;
  std::int64_t bytes = 0;
  unsigned phase = 0;
  std::vector<int> waiting;
};
/// A box on its way, or `bytes` after each other.
struct Copy {
  const void* from = nullptr;
  unsigned bytes = 0;
  std::uint32_t target = 0;
  const CUtensorMap* map = nullptr;
  const void* barrier = nullptr;
  std::array<std::int64_t, 4> start{};
  int bank = 0;
};
/// Up to 16 bytes on their way to shared memory.
struct SmallCopy {
  std::uint32_t target = 0;
  const void* from = nullptr;  ///< null: zeros
  std::size_t bytes = 16;
};
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
  int cluster_arrivals = 0;
  std::vector<std::vector<Product>> groups;  // committed, oldest first
  std::vector<Product> open;
  std::vector<std::vector<SmallCopy>> copy_groups;  // committed, oldest first
  std::vector<SmallCopy> open_copies;
  std::vector<std::pair<std::uint32_t, uint4>> stored;  // and not yet fenced
  std::vector<std::uint32_t> matrix_words;              // stored by store_matrix, likewise
};
struct Warp {
  Meeting meeting;
  std::array<std::uint64_t, 32> given{};
  std::array<int, 32> from{};
  std::array<std::uint64_t, 32> got{};
  std::array<std::uint32_t, 32> addresses{};
  std::array<std::array<std::uint32_t, 4>, 32> registers{};
  std::array<std::array<std::uint32_t, 2>, 32> b{};
  std::array<float*, 32> c{};
  std::array<std::array<int, 4>, 32> sums{};
  /// What store_matrix wrote and a barrier has not yet made the other lanes see.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> stored;  // address, word
};

/// On its way to another block's shared memory.
struct RemoteStore {
  int from = 0;  ///< fiber
  int rank = 0;
  std::uint32_t address = 0;
  std::vector<unsigned char> bytes;
};

/// Or a cluster of blocks, of which `bank` is the one whose shared memory lies at `memory`.
struct Block {
  int threads = 0;  ///< of one block
  int bank = 0;
  std::vector<std::vector<unsigned char>> banks;
  std::vector<bool> started;
  std::vector<RemoteStore> stores;
  std::vector<int> unfenced;  ///< of each word that store_matrix wrote: the thread, else -1
  int cluster_arrivals = 0;
  std::vector<int> cluster_waiting;
  std::vector<int> mail_waiting;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  // -1 - f: products of the warpgroup whose first fiber is f; 1000 + r: all threads of block r;
  // 2000 + 16 r + n: barrier n of block r
  std::map<int, Meeting> named;
  std::map<std::pair<int, const void*>, Barrier> barriers;  // of a bank
  std::vector<Copy> copies;
  std::vector<int> ready;
  ucontext_t scheduler;
  int current = 0;
  std::string wrong;
  std::mt19937_64 random;
  const std::function<void()>* kernel = nullptr;
};
Block block;

void yield() {
  swapcontext(&block.fibers[static_cast<std::size_t>(block.current)].context, &block.scheduler);
}
void wake(std::vector<int>& waiting) {
  block.ready.insert(block.ready.end(), waiting.begin(), waiting.end());
  waiting.clear();
}
/// The last that comes does `work` and wakes the others.
template <typename Work>
void meet(Meeting& meeting, int expected, const Work& work) {
  if (++meeting.come < expected) {
    meeting.waiting.push_back(block.current);
    return yield();
  }
  work();
  meeting.come = 0;
  wake(meeting.waiting);
  block.ready.push_back(block.current);  // not ahead of the others
  yield();
}
void show_stored(Warp& warp) {
  for (const auto& [address, word] : warp.stored) std::memcpy(memory + address, &word, 4);
  warp.stored.clear();
}
Warp& own_warp() { return block.warps[static_cast<std::size_t>(block.current / 32)]; }
std::size_t own_lane() { return static_cast<std::size_t>(block.current % 32); }

void settle(Barrier& barrier) {
  if (barrier.pending < 0) fail("more arrivals than a barrier counts");
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.pending = barrier.count;
  barrier.phase ^= 1;
  wake(barrier.waiting);
}
Barrier& barrier_at(const void* at, int bank) {
  const auto found = block.barriers.find({bank, at});
  if (found == block.barriers.end()) {
    fail("a barrier that nobody initialised");
    return block.barriers[{bank, at}];
  }
  return found->second;
}

/// The 128-byte swizzle: of the address, chunks of 16 bytes with the rows of 128.
std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }
float element_at(std::uint32_t address, bool half) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, memory + swizzled(address), 2);
  if (block.unfenced[swizzled(address) / 4] >= 0) fail("wgmma reads what nobody fenced");
  return half ? __half2float(__ushort_as_half(bits)) : __bfloat162float(__ushort_as_bfloat16(bits));
}
float code_value(std::uint32_t code) {
  return __half2float(
      static_cast<__half>(__nv_cvt_fp8_to_halfraw(static_cast<std::uint8_t>(code), __NV_E4M3)));
}
float half_of(std::uint32_t word, int upper, bool half) {
  const auto bits = static_cast<std::uint16_t>(upper != 0 ? word >> 16 : word & 0xffffU);
  return half ? __half2float(__ushort_as_half(bits)) : __bfloat162float(__ushort_as_bfloat16(bits));
}

/// Operand of a descriptor: rows of 16 k, or of 32 codes.
std::vector<float> operand(std::uint64_t descriptor, int rows, const Product& p, bool transposed) {
  const auto address = static_cast<std::uint32_t>(descriptor & 0x3fffU) << 4;
  const auto leading = static_cast<std::uint32_t>(descriptor >> 16 & 0x3fffU) << 4;
  const auto stride = static_cast<std::uint32_t>(descriptor >> 32 & 0x3fffU) << 4;
  if (descriptor >> 62 != 1) fail("a descriptor without the 128-byte swizzle");
  const std::uint32_t depth = p.codes ? 32 : 16;
  const std::uint32_t bytes = 32 / depth;
  std::vector<float> values(static_cast<std::size_t>(rows) * depth);
  for (std::uint32_t r = 0; r < static_cast<std::uint32_t>(rows); ++r) {
    for (std::uint32_t k = 0; k < depth; ++k) {
      const std::uint32_t at =
          transposed ? address + r / 64 * leading + k / 8 * stride + k % 8 * 128 + r % 64 * 2
                     : address + r / 8 * stride + r % 8 * 128 + k * bytes;
      values[r * depth + k] = p.codes ? code_value(memory[swizzled(at)]) : element_at(at, p.half);
    }
  }
  return values;
}

/// Element (row, k) of the operand that the threads of a warpgroup hold; `of` a thread's product.
template <typename Of>
float held_element(const Of& of, int row, int k) {
  const Product& first = of(0);
  const int in_word = first.codes ? 4 : 2;
  const int lane = row % 8 * 4 + k / in_word % 4;
  const int reg = row % 16 / 8 + 2 * (k / (4 * in_word));
  const Product& own = of(row / 16 * 32 + lane);
  const std::uint32_t word =
      own.a_held ? own.a_values[static_cast<std::size_t>(reg)] : own.a_registers[reg];
  return first.codes ? code_value(word >> 8 * (k % 4) & 0xffU) : half_of(word, k % 2, first.half);
}

/// The same product of all threads of a warpgroup.
void multiply(int first_fiber, std::size_t which) {
  const auto fiber = [&](int t) -> Fiber& {
    return block.fibers[static_cast<std::size_t>(first_fiber + t)];
  };
  const auto of = [&](int t) -> const Product& { return fiber(t).groups.front()[which]; };
  const Product& first = of(0);
  const int depth = first.codes ? 32 : 16;
  std::vector<float> a;
  if (first.a_registers == nullptr && !first.a_held) {
    a = operand(first.a, 64, first, false);
  } else {
    for (int i = 0; i < 64 * depth; ++i) a.push_back(held_element(of, i / depth, i % depth));
  }
  const std::vector<float> b = operand(first.b, first.columns, first, first.b_transposed);
  for (int t = 0; t < 128; ++t) {
    const Product& p = of(t);
    if (p.a != first.a || p.b != first.b) fail("threads of a warpgroup disagree on a product");
    for (int i = 0; i < p.columns / 2; ++i) {
      const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2);
      const int column = 8 * (i / 4) + 2 * (t % 4) + i % 2;
      float sum = p.accumulate ? p.d[i] : 0.0f;
      for (int k = 0; k < depth; ++k) {
        sum += a[static_cast<std::size_t>(row * depth + k)] *
               b[static_cast<std::size_t>(column * depth + k)];
      }
      p.d[i] = sum;
    }
  }
}

TensorMapShape<4> shape_of(const CUtensorMap& map) {
  TensorMapShape<4> shape;
  std::memcpy(static_cast<void*>(&shape), &map, sizeof(shape));
  return shape;
}

unsigned char* bank_memory(int bank) {
  return bank == block.bank ? memory : block.banks[static_cast<std::size_t>(bank)].data();
}

void land(const Copy& copy) {
  if (copy.map == nullptr) {
    std::memcpy(bank_memory(copy.bank) + copy.target, copy.from, copy.bytes);
    Barrier& barrier = barrier_at(copy.barrier, copy.bank);
    barrier.bytes -= copy.bytes;
    settle(barrier);
    return;
  }
  const TensorMapShape<4> shape = shape_of(*copy.map);
  const auto size = static_cast<std::uint32_t>(size_of(shape.type));
  const std::uint32_t row_bytes = shape.box[0] * size;
  if (row_bytes != 128) fail("a box whose rows are not 128 bytes");
  std::uint32_t row = 0;
  std::array<std::int64_t, 4> i{};
  for (i[3] = 0; i[3] < shape.box[3]; ++i[3]) {
    for (i[2] = 0; i[2] < shape.box[2]; ++i[2]) {
      for (i[1] = 0; i[1] < shape.box[1]; ++i[1], ++row) {
        for (i[0] = 0; i[0] < shape.box[0]; ++i[0]) {
          bool inside = true;
          std::int64_t offset = (copy.start[0] + i[0]) * size;
          for (std::size_t axis = 0; axis < 4; ++axis) {
            const std::int64_t at = copy.start[axis] + i[axis];
            inside = inside && at >= 0 && at < static_cast<std::int64_t>(shape.sizes[axis]);
            if (axis > 0) offset += at * static_cast<std::int64_t>(shape.strides[axis - 1]);
          }
          unsigned char* const to =
              bank_memory(copy.bank) +
              swizzled(copy.target + row * 128 + static_cast<std::uint32_t>(i[0]) * size);
          if (inside) {
            std::memcpy(to, static_cast<const char*>(shape.base) + offset, size);
          } else {
            std::memset(to, 0, size);
          }
        }
      }
    }
  }
  Barrier& barrier = barrier_at(copy.barrier, copy.bank);
  barrier.bytes -= static_cast<std::int64_t>(row) * row_bytes;
  settle(barrier);
}

void start_fiber() {
  (*block.kernel)();
  block.fibers[static_cast<std::size_t>(block.current)].done = true;
  yield();
}

/// The shared memory of block `rank` of the cluster comes to `memory`.
void show_bank(int rank) {
  block.started[static_cast<std::size_t>(rank)] = true;
  if (rank == block.bank) return;
  std::vector<unsigned char>& before = block.banks[static_cast<std::size_t>(block.bank)];
  std::memcpy(before.data(), memory, before.size());
  std::memcpy(memory, block.banks[static_cast<std::size_t>(rank)].data(), before.size());
  block.bank = rank;
}

void reset(int block_threads, int cluster, std::size_t shared) {
  const int threads = block_threads * cluster;
  std::memset(memory, 0xff, sizeof(memory));  // NaN
  block.threads = block_threads;
  block.bank = 0;
  block.banks.assign(static_cast<std::size_t>(cluster), std::vector<unsigned char>(shared, 0xff));
  block.started.assign(static_cast<std::size_t>(cluster), false);
  block.stores.clear();
  block.unfenced.assign(kEmulatedShared / 4, -1);
  block.cluster_arrivals = 0;
  block.cluster_waiting.clear();
  block.mail_waiting.clear();
  block.warps.assign(static_cast<std::size_t>(threads / 32), {});
  block.named.clear();
  block.barriers.clear();
  block.copies.clear();
  block.ready.clear();
  block.fibers.resize(static_cast<std::size_t>(threads));
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = block.fibers[static_cast<std::size_t>(t)];
    if (fiber.stack == nullptr) fiber.stack = std::make_unique<char[]>(kStackBytes);
    fiber.done = false;
    fiber.cluster_arrivals = 0;
    fiber.matrix_words.clear();
    fiber.groups.clear();
    fiber.open.clear();
    fiber.copy_groups.clear();
    fiber.open_copies.clear();
    fiber.stored.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start_fiber, 0);
    block.ready.push_back(t);
  }
}

}  // namespace

std::function<void()> previous_grid;

namespace {

/// One turn of one fiber or copy.
void take_turn(Starved starved) {
  const auto waits = [&](int fiber) {
    const int thread = fiber % block.threads;
    const bool of_rank = starved.rank < 0 || fiber / block.threads == starved.rank;
    return of_rank && thread >= starved.first && thread < starved.first + starved.count;
  };
  const std::size_t choices = block.ready.size() + block.copies.size();
  std::size_t i = block.random() % choices;
  for (std::size_t n = 0; n < choices && i < block.ready.size() && waits(block.ready[i]); ++n) {
    i = (i + 1) % choices;
  }
  // Another block's memory takes long to show: mostly the same block goes on.
  if (block.banks.size() > 1 && i < block.ready.size() && block.random() % 16 != 0) {
    const auto own = [&](std::size_t n) {
      return n < block.ready.size() && block.ready[n] / block.threads == block.bank &&
             !waits(block.ready[n]);
    };
    for (std::size_t n = 0; n < choices; ++n) {
      if (own((i + n) % choices)) {
        i = (i + n) % choices;
        break;
      }
    }
  }
  if (i >= block.ready.size()) {
    i -= block.ready.size();
    const Copy copy = block.copies[i];
    block.copies.erase(block.copies.begin() + static_cast<std::ptrdiff_t>(i));
    return land(copy);
  }
  block.current = block.ready[i];
  block.ready[i] = block.ready.back();
  block.ready.pop_back();
  const int rank = block.current / block.threads;
  threadIdx.x = static_cast<unsigned>(block.current % block.threads);
  blockIdx.z = blockIdx.z / static_cast<unsigned>(block.banks.size()) *
                   static_cast<unsigned>(block.banks.size()) +
               static_cast<unsigned>(rank);
  show_bank(rank);
  swapcontext(&block.scheduler, &block.fibers[static_cast<std::size_t>(block.current)].context);
}

/// One block, or one cluster, to its end.
void run_block(int threads, const Grid& grid, Starved starved) {
  reset(threads, grid.cluster, grid.shared);
  while (block.wrong.empty() && block.ready.size() + block.copies.size() > 0) take_turn(starved);
  for (std::size_t t = 0; t < block.fibers.size(); ++t) {
    if (!block.fibers[t].done) fail("thread " + std::to_string(t) + " waits for ever");
  }
  for (const auto& [at, barrier] : block.barriers) {
    if (barrier.bytes != 0) fail("a barrier is left with bytes to come");
  }
  for (const auto& [name, meeting] : block.named) {
    if (meeting.come != 0) fail("a barrier of threads is left half met");
  }
  if (!block.stores.empty()) fail("a store to another block that nobody released");
}

}  // namespace

std::string run(Grid grid, int threads, std::uint64_t seed, Starved starved,
                const std::function<void()>& kernel) {
  block.random.seed(seed);
  block.wrong.clear();
  block.kernel = &kernel;
  gridDim = {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
             static_cast<unsigned>(grid.z)};
  for (int b = 0; b < grid.x * grid.y * grid.z && block.wrong.empty(); b += grid.cluster) {
    blockIdx = {static_cast<unsigned>(b / grid.z % grid.x),
                static_cast<unsigned>(b / grid.z / grid.x), static_cast<unsigned>(b % grid.z)};
    if (starved.count == 0) {
      starved = {static_cast<int>(block.random() % static_cast<std::uint64_t>(threads)), 1};
    }
    run_block(threads, grid, starved);
  }
  return block.wrong;
}

void wait_for_previous_grid() {
  if (!previous_grid) return;
  const std::function<void()> work = std::move(previous_grid);
  previous_grid = nullptr;
  work();
}

void cluster_arrive(bool releases) {
  Fiber& fiber = block.fibers[static_cast<std::size_t>(block.current)];
  ++fiber.cluster_arrivals;
  ++block.cluster_arrivals;
  if (releases) {
    std::erase_if(block.stores, [](const RemoteStore& store) {
      if (store.from != block.current) return false;
      std::memcpy(bank_memory(store.rank) + store.address, store.bytes.data(), store.bytes.size());
      return true;
    });
  }
  wake(block.cluster_waiting);
}
void cluster_wait() {
  const Fiber& fiber = block.fibers[static_cast<std::size_t>(block.current)];
  while (block.cluster_arrivals < fiber.cluster_arrivals * static_cast<int>(block.fibers.size())) {
    block.cluster_waiting.push_back(block.current);
    yield();
  }
}
std::uint32_t cluster_address(std::uint32_t shared, unsigned rank) { return shared | rank << 24; }
void cluster_store(std::uint32_t address, const void* from, std::size_t bytes) {
  RemoteStore store;
  store.from = block.current;
  store.rank = static_cast<int>(address >> 24);
  store.address = address & 0xffffffU;
  if (store.rank >= static_cast<int>(block.banks.size()))
    return fail("no such block in the cluster");
  if (!block.started[static_cast<std::size_t>(store.rank)]) {
    return fail("a store to a block that has not started");
  }
  const auto first = block.fibers.begin() + store.rank * block.threads;
  if (std::all_of(first, first + block.threads, [](const Fiber& f) { return f.done; })) {
    return fail("a store to a block that has ended");
  }
  const auto* const data = static_cast<const unsigned char*>(from);
  store.bytes.assign(data, data + bytes);
  block.stores.push_back(std::move(store));
}

void mail_left() {
  wake(block.mail_waiting);
  block.ready.push_back(block.current);
  yield();
}
void mail_wait() {
  block.mail_waiting.push_back(block.current);
  yield();
}

void touch_stretch(const void* p, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0 || bytes == 0 || bytes % 16 != 0) {
    fail("a stretch that does not begin and end at multiples of 16 bytes");
  }
  const auto* const at = static_cast<const volatile char*>(p);
  (void)at[0];
  (void)at[bytes - 1];
}

void warp_product(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                  bool half) {
  Warp& warp = own_warp();
  warp.registers[own_lane()] = {a[0], a[1], a[2], a[3]};
  warp.b[own_lane()] = {b0, b1};
  warp.c[own_lane()] = c;
  meet(warp.meeting, 32, [&] {
    for (std::size_t row = 0; row < 16; ++row) {
      for (std::size_t column = 0; column < 8; ++column) {
        float& sum = warp.c[row % 8 * 4 + column / 2][row / 8 * 2 + column % 2];
        for (std::size_t k = 0; k < 16; ++k) {
          const std::size_t t = k % 8 / 2;
          const std::uint32_t x = warp.registers[row % 8 * 4 + t][row / 8 + 2 * (k / 8)];
          const std::uint32_t y = warp.b[column * 4 + t][k / 8];
          sum +=
              half_of(x, static_cast<int>(k % 2), half) * half_of(y, static_cast<int>(k % 2), half);
        }
      }
    }
  });
}

void fail(const std::string& what) {
  if (block.wrong.empty()) block.wrong = what;
}

bool wrote_behind(std::size_t first) {
  return std::any_of(memory + first, memory + kEmulatedShared,
                     [](unsigned char byte) { return byte != 0xff; });
}

void sync_threads() {
  show_stored(own_warp());
  meet(block.named[1000 + block.current / block.threads], block.threads, [] {});
}
void named_barrier(int name, int threads, bool waits) {
  Meeting& meeting = block.named[2000 + block.current / block.threads * 16 + name];
  if (waits) return meet(meeting, threads, [] {});
  if (++meeting.come < threads) return;
  meeting.come = 0;
  wake(meeting.waiting);
}
void sync_warp() {
  Warp& warp = own_warp();
  meet(warp.meeting, 32, [&] { show_stored(warp); });
}

std::uint64_t shuffle(std::uint64_t value, int from_lane) {
  Warp& warp = own_warp();
  warp.given[own_lane()] = value;
  warp.from[own_lane()] = from_lane;
  meet(warp.meeting, 32, [&] {
    for (std::size_t l = 0; l < 32; ++l) {
      warp.got[l] = warp.given[static_cast<std::size_t>(warp.from[l])];
    }
  });
  return warp.got[own_lane()];
}

void barrier_init(const void* barrier, unsigned count) {
  Barrier& b = block.barriers[{block.bank, barrier}];
  b.count = b.pending = static_cast<int>(count);
}
void barrier_arrive(const void* barrier, unsigned bytes) {
  Barrier& b = barrier_at(barrier, block.bank);
  b.bytes += bytes;
  --b.pending;
  settle(b);
  // What a thread does after an arrival may come late.
  if (block.random() % 4 != 0) return;
  block.ready.push_back(block.current);
  yield();
}
void barrier_wait(const void* barrier, unsigned parity) {
  Barrier& b = barrier_at(barrier, block.bank);
  while (b.phase == parity) {  // the phase of that parity is not over
    b.waiting.push_back(block.current);
    yield();
  }
}

void tensor_load(void* shared, const CUtensorMap* map, const void* barrier, const int* start,
                 int rank) {
  Copy copy;
  copy.target = static_cast<std::uint32_t>(static_cast<unsigned char*>(shared) - memory);
  if (copy.target % 128 != 0) fail("a box that does not begin with a row");
  if (start[0] * size_of(shape_of(*map).type) % 16 != 0) fail("a box that begins within 16 bytes");
  copy.map = map;
  copy.barrier = barrier;
  copy.bank = block.bank;
  for (int axis = 0; axis < rank; ++axis) copy.start[static_cast<std::size_t>(axis)] = start[axis];
  block.copies.push_back(copy);
}

void bulk_load(void* shared, const void* from, unsigned bytes, const void* barrier) {
  Copy copy;
  copy.target = static_cast<std::uint32_t>(static_cast<unsigned char*>(shared) - memory);
  if (copy.target % 16 != 0 || bytes % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
    fail("a bulk copy that begins or ends within 16 bytes");
  }
  copy.bank = block.bank;
  copy.from = from;
  copy.bytes = bytes;
  copy.barrier = barrier;
  block.copies.push_back(copy);
}

void store_shared(std::uint32_t address, const uint4& x) {
  if (address % 16 != 0) fail("a store of 16 bytes that begins within them");
  block.fibers[static_cast<std::size_t>(block.current)].stored.emplace_back(address, x);
}
void fence_shared() {
  auto& words = block.fibers[static_cast<std::size_t>(block.current)].matrix_words;
  for (const std::uint32_t address : words) {
    int& unfenced = block.unfenced[address / 4];
    if (unfenced == block.current) unfenced = -1;
  }
  words.clear();
  auto& stored = block.fibers[static_cast<std::size_t>(block.current)].stored;
  for (const auto& [address, x] : stored) std::memcpy(memory + address, &x, 16);
  stored.clear();
}

void store_matrix(std::uint32_t address, const std::uint32_t (&r)[4]) {
  Warp& warp = own_warp();
  warp.addresses[own_lane()] = address;
  warp.registers[own_lane()] = {r[0], r[1], r[2], r[3]};
  meet(warp.meeting, 32, [&] {
    for (std::size_t l = 0; l < 32; ++l) {
      for (std::size_t m = 0; m < 4; ++m) {
        const std::uint32_t word =
            warp.addresses[8 * m + l / 4] + static_cast<std::uint32_t>(l % 4 * 4);
        warp.stored.emplace_back(word, warp.registers[l][m]);
        const int owner = block.current / 32 * 32 + static_cast<int>(l);
        block.unfenced[word / 4] = owner;
        block.fibers[static_cast<std::size_t>(owner)].matrix_words.push_back(word);
      }
    }
  });
}

namespace {
/// Byte `column` of a lane's row of A or column of B, of which a word has four lanes' neighbours.
int byte_of(std::uint32_t word, int i, bool is_unsigned) {
  const auto byte = static_cast<std::uint8_t>(word >> 8 * i);
  return is_unsigned ? byte : static_cast<std::int8_t>(byte);
}
void land(const SmallCopy& copy) {
  if (copy.from != nullptr) {
    std::memcpy(memory + copy.target, copy.from, copy.bytes);
  } else {
    std::memset(memory + copy.target, 0, copy.bytes);
  }
}
std::vector<Readable> readable;
Fiber& own_fiber() { return block.fibers[static_cast<std::size_t>(block.current)]; }
}  // namespace

void multiply_bytes(int (&c)[4], const std::array<std::uint32_t, 4>& a,
                    const std::array<std::uint32_t, 2>& b, int columns, bool a_unsigned) {
  Warp& warp = own_warp();
  warp.registers[own_lane()] = a;
  warp.b[own_lane()] = b;
  meet(warp.meeting, 32, [&] {
    for (std::size_t l = 0; l < 32; ++l) {
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t row = l / 4 + 8 * (i / 2);
        const std::size_t column = 2 * (l % 4) + i % 2;
        int sum = 0;
        for (std::size_t k = 0; k < static_cast<std::size_t>(columns); ++k) {
          const std::size_t quarter = k % 16 / 4;  // whose lane has it
          const auto of_word = static_cast<int>(k % 4);
          sum += byte_of(warp.registers[row % 8 * 4 + quarter][row / 8 + 2 * (k / 16)], of_word,
                         a_unsigned) *
                 byte_of(warp.b[column * 4 + quarter][k / 16], of_word, false);
        }
        warp.sums[l][i] = sum;
      }
    }
  });
  for (std::size_t i = 0; i < 4; ++i) c[i] += warp.sums[own_lane()][i];
}

void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  Warp& warp = own_warp();
  warp.addresses[own_lane()] = address;
  if (address % 16 != 0) fail("a row of a matrix that does not begin at a multiple of 16 bytes");
  meet(warp.meeting, 32, [&] {
    for (std::size_t l = 0; l < 32; ++l) {
      for (std::size_t m = 0; m < 4; ++m) {
        std::memcpy(&warp.registers[l][m], memory + warp.addresses[8 * m + l / 4] + l % 4 * 4, 4);
      }
    }
  });
  for (std::size_t m = 0; m < 4; ++m) r[m] = warp.registers[own_lane()][m];
}

std::uint32_t transpose(std::uint32_t x) {
  Warp& warp = own_warp();
  warp.registers[own_lane()][0] = x;
  meet(warp.meeting, 32, [&] {
    std::uint16_t rows[8][8];
    for (std::size_t l = 0; l < 32; ++l) {
      std::memcpy(&rows[l / 4][2 * (l % 4)], &warp.registers[l][0], 4);
    }
    for (std::size_t l = 0; l < 32; ++l) {
      const std::uint16_t pair[2] = {rows[2 * (l % 4)][l / 4], rows[2 * (l % 4) + 1][l / 4]};
      std::memcpy(&warp.registers[l][1], pair, 4);
    }
  });
  return warp.registers[own_lane()][1];
}

void copy_only_from(std::vector<Readable> places) { readable = std::move(places); }

/// Half of them land at once: a slot that others still read is seen to be overwritten.
void copy_async(std::uint32_t address, const void* from, bool valid, int bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  if (address % size != 0 || reinterpret_cast<std::uintptr_t>(from) % size != 0) {
    fail("a copy that does not begin at a multiple of its bytes");
  }
  const auto* const begin = static_cast<const char*>(from);
  bool may = readable.empty();
  for (const Readable& place : readable) {
    const auto* const first = static_cast<const char*>(place.from);
    may = may || (begin >= first && begin + size <= first + place.bytes);
  }
  if (!may) return fail("a copy from outside of what it may read");
  const SmallCopy copy{address, valid ? from : nullptr, size};
  if (block.random() % 2 == 0) return land(copy);
  own_fiber().open_copies.push_back(copy);
}
void copies_commit() {
  Fiber& fiber = own_fiber();
  fiber.copy_groups.push_back(std::move(fiber.open_copies));
  fiber.open_copies.clear();
}
void copies_wait(int pending) {
  Fiber& fiber = own_fiber();
  while (fiber.copy_groups.size() > static_cast<std::size_t>(pending)) {
    for (const SmallCopy& copy : fiber.copy_groups.front()) land(copy);
    fiber.copy_groups.erase(fiber.copy_groups.begin());
  }
}

void product(const Product& p) {
  block.fibers[static_cast<std::size_t>(block.current)].open.push_back(p);
}
void products_commit() {
  Fiber& fiber = block.fibers[static_cast<std::size_t>(block.current)];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}
/// Products happen when all four warps wait for them: until then the operands must stay.
void products_wait(int pending) {
  const int thread = block.current % block.threads;
  const int first = block.current - thread % 128;
  meet(block.named[-1 - first], 128, [&] {
    const auto begin = block.fibers.begin() + first;
    while (begin->groups.size() > static_cast<std::size_t>(pending)) {
      for (std::size_t i = 0; i < begin->groups.front().size(); ++i) multiply(first, i);
      for (auto fiber = begin; fiber != begin + 128; ++fiber) {
        fiber->groups.erase(fiber->groups.begin());
      }
    }
  });
}

}  // namespace emulator

namespace {
template <int kRank>
CUtensorMap keep(const TensorMapShape<kRank>& shape) {
  static_assert(sizeof(TensorMapShape<4>) <= sizeof(CUtensorMap));
  TensorMapShape<4> whole;
  whole.base = shape.base;
  whole.type = shape.type;
  whole.sizes.fill(1);
  whole.strides.fill(0);
  whole.box.fill(1);
  for (std::size_t i = 0; i < kRank; ++i) whole.sizes[i] = shape.sizes[i];
  for (std::size_t i = 0; i < kRank; ++i) whole.box[i] = shape.box[i];
  for (std::size_t i = 0; i + 1 < kRank; ++i) whole.strides[i] = shape.strides[i];
  CUtensorMap map = {};
  std::memcpy(&map, static_cast<const void*>(&whole), sizeof(whole));
  return map;
}
}  // namespace

CUtensorMap make_tensor_map(const TensorMapShape<3>& shape) { return keep(shape); }
CUtensorMap make_tensor_map(const TensorMapShape<4>& shape) { return keep(shape); }

}  // namespace attn::gpu
