// What the Hopper prefill kernel does where: its tiles and their order, the steps of a tile, the
// boxes that a step's keys arrive in, and where a thread's elements lie. Plain arithmetic that host
// and device share: tests run it without a device.
#pragma once

#include <cstdint>

#include "gpu/kernels/host_device.h"

namespace attn::gpu {

/// Packed rows of a consumer warpgroup.
inline constexpr int kHopperGroupRows = 64;
/// Announced tiles in shared memory.
inline constexpr int kHopperTileSlots = 2;
/// Sequences of a call: their order lies in shared memory.
inline constexpr int kHopperMostSequences = 512;
/// Columns of a slab, the 128 bytes of 16-bit elements that the swizzle spans: rows of q, k and v
/// are cut into slabs, [slab][row][64].
inline constexpr int kSlabColumns = 64;
inline constexpr int kSlabRowBytes = 128;
constexpr std::int64_t hopper_slabs(std::int64_t head_dim) {
  return (head_dim + kSlabColumns - 1) / kSlabColumns;
}

/// Consumer warpgroups of a block, and the packed rows of a tile.
inline constexpr int kHopperGroups = 2;
inline constexpr int kHopperRows = kHopperGroupRows * kHopperGroups;
/// With the producer's warpgroup.
inline constexpr int kHopperThreads = 128 * (1 + kHopperGroups);
/// Registers of a thread of the producer and of a consumer: no more than there are at entry, all
/// together.
inline constexpr int kHopperProducerRegisters = 48;
inline constexpr int kHopperConsumerRegisters = 224;
/// The same where the producer widens codes.
inline constexpr int kHopperWidenerRegisters = 88;
inline constexpr int kHopperCodedConsumerRegisters = 208;
static_assert(128 * (kHopperWidenerRegisters + kHopperGroups * kHopperCodedConsumerRegisters) <=
              65'536 / kHopperThreads / 8 * 8 * kHopperThreads);
/// Slabs of its 16 rows that a consumer's warp has in shared memory on their way out.
ATTN_HOST_DEVICE constexpr int hopper_out_slabs(int slabs) { return slabs == 2 ? 2 : 1; }

/// Keys of a step: two stages of keys and values beside q fit into shared memory, and scores and
/// outputs into the registers (16-bit elements; `slabs` of a row).
ATTN_HOST_DEVICE constexpr int hopper_keys(int slabs) { return slabs <= 2 ? 128 : 64; }

/// Steps in shared memory, of keys and of values: as many as fit, four at most. Short steps need
/// them, whose products take less time than a copy.
ATTN_HOST_DEVICE constexpr int hopper_stages(int slabs) {
  return slabs == 1 ? 4 : slabs == 3 ? 3 : 2;
}

/// Heads of a group that are packed into the rows of a tile, row r being query r / pack, head r %
/// pack. All of them where they divide a warpgroup's rows, because one box then loads whole
/// queries.
ATTN_HOST_DEVICE constexpr int hopper_pack(int group) {
  return kHopperGroupRows % group == 0 ? group : 1;
}

ATTN_HOST_DEVICE int ceil_div_int(int a, int b) { return (a + b - 1) / b; }

// ---- order of the tiles
// Sequences from the most keys to the fewest. In a sequence, sections of units (the packed heads of
// one q tile) whose keys and values stay in the L2 together; in a section row tiles from the last,
// which sees the most keys of a causal mask, to the first; then the units. The kernel's blocks draw
// numbers of this order, so that the longest work starts first.

/// Place of sequence `s` in the order: how many come before it.
ATTN_HOST_DEVICE int hopper_rank(const int* keys, int sequences, int s) {
  int rank = 0;
  for (int t = 0; t < sequences; ++t) {
    rank += keys[t] > keys[s] || (keys[t] == keys[s] && t < s) ? 1 : 0;
  }
  return rank;
}

/// Row tiles of a sequence.
ATTN_HOST_DEVICE int hopper_row_tiles(int packed_rows) {
  return ceil_div_int(packed_rows, kHopperRows);
}

struct HopperPlace {
  int rank = 0;  ///< of the sequence
  int unit = 0;
  int row_tile = 0;
};

/// Tile `index` of first_tile[sequences]: first_tile[r] is the number of tiles of the sequences of
/// ranks below r. `section`: units of a section.
ATTN_HOST_DEVICE HopperPlace hopper_place(const int* first_tile, int sequences, int units,
                                          int section, int index) {
  int low = 0;
  int high = sequences - 1;
  while (low < high) {  // the last rank that begins at or before index: empty ones begin with it
    const int middle = (low + high + 1) / 2;
    if (first_tile[middle] <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const int rest = index - first_tile[low];
  const int row_tiles = (first_tile[low + 1] - first_tile[low]) / units;
  const int first_unit = rest / (section * row_tiles) * section;
  const int width = units - first_unit < section ? units - first_unit : section;
  const int within = rest - first_unit * row_tiles;
  HopperPlace place;
  place.rank = low;
  place.unit = first_unit + within % width;
  place.row_tile = row_tiles - 1 - within / width;
  return place;
}

// ---- steps of a tile
// Rows see one run of keys each, and both its ends move forward with the row: visible_keys().

/// Steps of keys_per_step keys, first .. last - 1.
struct HopperSteps {
  int first = 0;
  int last = 0;
};

/// Those in which some row of a tile sees a key: `begin` of its first row, `end` of its last.
ATTN_HOST_DEVICE HopperSteps hopper_steps(std::int64_t begin, std::int64_t end, int keys_per_step) {
  HopperSteps steps;
  if (begin >= end) return steps;
  steps.first = static_cast<int>(begin / keys_per_step);
  steps.last = static_cast<int>((end + keys_per_step - 1) / keys_per_step);
  return steps;
}

/// How a warpgroup walks through its tile's steps: from the last key to the first. The i-th step is
/// `last_step` - 1 - i; from `first_plain` to `last_plain` - 1 (of i) every row sees every key.
struct HopperWalk {
  int steps = 0;
  int first_plain = 0;
  int last_plain = 0;
};

/// `begin` of the warpgroup's last row and `end` of its first: keys that all its rows see.
ATTN_HOST_DEVICE HopperWalk hopper_walk(int last_step, int steps, std::int64_t begin,
                                        std::int64_t end, int keys_per_step) {
  HopperWalk walk;
  walk.steps = steps;
  walk.first_plain = walk.last_plain = steps;
  if (begin < 0) begin = 0;
  if (end <= begin) return walk;
  const int first = static_cast<int>((begin + keys_per_step - 1) / keys_per_step);
  const int last = static_cast<int>(end / keys_per_step);
  if (last <= first) return walk;
  const int from = last_step - last;  // of i
  const int to = last_step - first;
  walk.first_plain = from < 0 ? 0 : from > steps ? steps : from;
  walk.last_plain = to < walk.first_plain ? walk.first_plain : to > steps ? steps : to;
  return walk;
}

// ---- rings
// Slots that are filled and read in turns, each with two mbarriers: full, which a filler's arrival
// completes (with the bytes that it announced), and empty, which the readers complete together. A
// wait names a phase by its parity; before the first phase a wait for parity 1 returns at once.

ATTN_HOST_DEVICE int ring_slot(int position, int slots) { return position % slots; }
/// What readers wait for before position `position` of a ring, and its filler on `empty`.
ATTN_HOST_DEVICE unsigned ring_full_parity(int position, int slots) {
  return static_cast<unsigned>(position / slots % 2);
}
ATTN_HOST_DEVICE unsigned ring_empty_parity(int position, int slots) {
  return ring_full_parity(position, slots) ^ 1;
}

/// A reader's place in a ring, step by step: fewer instructions than the functions above of a
/// position.
template <int kSlots>
struct RingPlace {
  int slot = 0;
  unsigned parity = 0;  ///< what ring_full_parity gives
  ATTN_HOST_DEVICE void advance() {
    if (++slot < kSlots) return;
    slot = 0;
    parity ^= 1;
  }
};

/// Warps that complete a phase of empty, a lane of each arriving: all consumers'; of q, one
/// warpgroup's; of the announced tiles, those of the producer's other warps, too. Of these every
/// lane arrives, which has read the tile itself: racecheck follows that, but no lane that speaks
/// for its warp.
inline constexpr int kHopperReaders = 4 * kHopperGroups;
inline constexpr int kHopperQueryReaders = 4;
inline constexpr int kHopperTileReaders = kHopperReaders + 3;

// ---- boxes of a step
// A box is a slab of `piece` keys of one page. Pieces never cross a page: they divide its size.

/// Keys of a piece: the largest number that divides a page and a step. A multiple of 8, so that
/// pieces begin where the swizzle does, or 0 where the page is none.
constexpr int hopper_piece(std::int64_t page_size, int keys_per_step) {
  if (page_size <= 0 || page_size % 8 != 0) return 0;
  int piece = keys_per_step;
  while (page_size % piece != 0) piece /= 2;
  return piece;
}

/// Pieces of a step that hold a key of the sequence; the others are not loaded. `step_key`: the
/// step's first key.
ATTN_HOST_DEVICE int hopper_pieces(int keys, int step_key, int keys_per_step, int piece) {
  const int live = keys - step_key < keys_per_step ? keys - step_key : keys_per_step;
  return ceil_div_int(live, piece);
}

/// Where the keys from `key` on lie: the column of the page table, and the slot of its page.
struct PagePlace {
  int column = 0;
  int slot = 0;
};
ATTN_HOST_DEVICE PagePlace page_place(int key, int page_size) {
  PagePlace place;
  const auto size = static_cast<unsigned>(page_size);
  if ((size & (size - 1)) == 0) {  // no division, which takes a tenth of a producer's time
#ifdef __CUDA_ARCH__
    place.column = key >> __popc(size - 1);
#else
    place.column = key >> __builtin_popcount(size - 1);
#endif
    place.slot = key & (page_size - 1);
    return place;
  }
  place.column = static_cast<int>(static_cast<unsigned>(key) / static_cast<unsigned>(page_size));
  place.slot = key - place.column * page_size;
  return place;
}

// ---- places of elements

/// Byte of a slab of rows of 128 bytes at which byte `byte` of a row lies: the 16-byte chunks
/// change places with the row. Slabs begin at multiples of 1024 bytes.
ATTN_HOST_DEVICE constexpr std::uint32_t swizzle_128(std::uint32_t row, std::uint32_t byte) {
  return row * 128 + ((((byte >> 4) ^ row) & 7) << 4) + (byte & 15);
}

/// Row (of a warpgroup's 64) and column of element `i` of thread `thread`'s accumulators.
ATTN_HOST_DEVICE constexpr int accumulator_row(int thread, int i) {
  return 16 * (thread / 32 % 4) + thread % 32 / 4 + 8 * (i / 2 % 2);
}
ATTN_HOST_DEVICE constexpr int accumulator_column(int thread, int i) {
  return 8 * (i / 4) + 2 * (thread % 4) + i % 2;
}

/// What store_matrix_x4 number `i` (16 columns) of outputs is told by thread `thread`: the byte of
/// its warp's slab i / 4, of 16 rows, at which its row of 8 begins.
ATTN_HOST_DEVICE constexpr std::uint32_t output_store_byte(int thread, int i) {
  return swizzle_128(static_cast<std::uint32_t>(thread % 16),
                     static_cast<std::uint32_t>(i % 4 * 32 + 16 * (thread % 32 / 16)));
}
/// Row (of a warp's 16) and 16-byte chunk of slab i / 4 that thread `thread` then copies out, a
/// warp four whole rows of a slab.
ATTN_HOST_DEVICE constexpr int output_row(int thread, int i) { return i % 4 * 4 + thread % 32 / 8; }
ATTN_HOST_DEVICE constexpr int output_chunk(int thread) { return thread % 8; }

/// A descriptor `units` of 16 bytes further: the address is all that changes, in the lower word.
ATTN_HOST_DEVICE constexpr std::uint64_t descriptor_after(std::uint64_t descriptor,
                                                          std::uint32_t units) {
  return (descriptor & 0xffffffff00000000u) | (static_cast<std::uint32_t>(descriptor) + units);
}

// ---- codes of a cache
// Codes, a byte an element, come by ordinary loads of 16 at a time and are widened on their way
// into the slabs, by all four warps of the producing warpgroup (attention_hopper_codes.cuh).

/// Slabs of the instance that takes rows of so many: three go to that of four.
constexpr std::int64_t hopper_code_slabs(std::int64_t slabs) { return slabs == 3 ? 4 : slabs; }
/// Slabs that a warp's load spans: two where it can, which are whole lines of 128 bytes.
ATTN_HOST_DEVICE constexpr int hopper_code_span(int slabs) { return slabs % 2 == 0 ? 2 : 1; }
/// Rows of a warp's load: a divisor of 8, so that they lie in one page.
ATTN_HOST_DEVICE constexpr int hopper_code_rows(int slabs) { return 8 / hopper_code_span(slabs); }
/// Loads of a warp that go through all rows of a step.
ATTN_HOST_DEVICE constexpr int hopper_code_passes(int slabs) {
  return hopper_keys(slabs) / (4 * hopper_code_rows(slabs));
}
/// Loads of a thread that bring a step's keys, or its values.
ATTN_HOST_DEVICE constexpr int hopper_code_loads(int slabs) {
  return hopper_code_passes(slabs) * slabs / hopper_code_span(slabs);
}

/// Where 16 codes belong: columns 16 * chunk .. of a slab, in a row of the step. They fill the
/// 16-byte chunks 2 * chunk and 2 * chunk + 1 of the row.
struct HopperCodePlace {
  int slab = 0;
  int row = 0;
  int chunk = 0;
};
/// What load `load` of thread `thread` (of 128) brings. Eight lanes after each other store into two
/// rows after each other, whose chunks the swizzle puts into all banks.
ATTN_HOST_DEVICE constexpr HopperCodePlace hopper_code_place(int slabs, int thread, int load) {
  const int span = hopper_code_span(slabs);
  const int rows = hopper_code_rows(slabs);
  const int passes = hopper_code_passes(slabs);
  const int lane = thread % 32;
  HopperCodePlace place;
  place.slab = load / passes * span + (span == 2 ? lane / 8 % 2 : 0);
  place.row = load % passes * 4 * rows + thread / 32 * rows +
              (span == 2 ? lane / 16 * 2 + lane / 4 % 2 : lane / 4);
  place.chunk = lane % 4;
  return place;
}

// ---- images of steps
// Where many tiles want the same codes they are widened, or turned, once: a pass before the kernel
// leaves each step of a kv head as it is to lie in a stage of shared memory, and a block copies it
// whole (attention_hopper_images.cuh).

/// Number of a step's image: `steps` of them for each kv head of each sequence.
ATTN_HOST_DEVICE constexpr std::int64_t hopper_image(int sequence, int kv_head, int kv_heads,
                                                     int steps, int step) {
  return (static_cast<std::int64_t>(sequence) * kv_heads + kv_head) * steps + step;
}
/// Bytes of the image of widened keys (or values) of a step, and of turned values.
ATTN_HOST_DEVICE constexpr int hopper_widened_bytes(int slabs) {
  return slabs * hopper_keys(slabs) * kSlabRowBytes;
}
ATTN_HOST_DEVICE constexpr int hopper_turned_bytes(int slabs) {
  return slabs * kSlabColumns * kSlabRowBytes;
}

// ---- products of codes
// Queries and probabilities are turned to e4m3, and wgmma multiplies codes with codes
// (attention_hopper_fp8.cuh). Rows of q and k are 128 bytes, a channel a byte, in the swizzle. Of v
// a row is a channel and has a step's keys, a byte each.

/// Steps in shared memory.
inline constexpr int kHopperFp8Stages = 4;
inline constexpr int kHopperFp8ProducerRegisters = 80;
inline constexpr int kHopperFp8ConsumerRegisters = 208;
static_assert(128 * (kHopperFp8ProducerRegisters + kHopperGroups * kHopperFp8ConsumerRegisters) <=
              65'536 / kHopperThreads / 8 * 8 * kHopperThreads);
/// Probabilities are multiplied by 2 to this before they are rounded to e4m3, whose largest number
/// is 448: while a shift is kept they may be up to 7.
inline constexpr int kHopperFp8ProbabilityLog2 = 6;

/// Key (of 16 after each other) that byte `place` of theirs in a row of v is: so that what a thread
/// has of a product's sums, keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9, are four bytes after each
/// other, as the thread's fragment of the next product wants them.
ATTN_HOST_DEVICE constexpr int fp8_key(int place) {
  return place / 4 * 2 + place % 2 + place / 2 % 2 * 8;
}

/// A thread turns blocks of 16 keys, of four channels after each other. The channel (of the four)
/// whose keys it stores in its turn `turn`: such that eight threads after each other store into
/// rows that are different modulo 8, which the swizzle puts into all banks.
ATTN_HOST_DEVICE constexpr int fp8_channel(int thread, int turn) {
  return (turn + thread % 8 / 2) % 4;
}

/// What queries of a row are multiplied by before they are rounded to e4m3, and what takes it back,
/// as the bits of float32: powers of two that bring the row's largest magnitude (of bits `amax`)
/// into [128, 256), as far as float32 has them. Of a row that is not finite: NaN takes it back.
struct Fp8RowScale {
  std::uint32_t times = 0;
  std::uint32_t back = 0;
};
ATTN_HOST_DEVICE constexpr Fp8RowScale fp8_row_scale(std::uint32_t amax) {
  const std::uint32_t biased = amax >> 23;
  const std::uint32_t exponent = biased < 8 ? 8 : biased;
  Fp8RowScale scale;
  scale.times = (261 - exponent) << 23;
  scale.back = biased == 255 ? 0x7fc00000u : (exponent - 7) << 23;
  return scale;
}

// ---- masks and online softmax

/// True when a row that sees `width` keys, the step's first being its `from`-th (it may lie before
/// or behind them), does not see key `column` of the step.
ATTN_HOST_DEVICE bool hopper_hidden(int from, int column, int width) {
  return static_cast<unsigned>(from + column) >= static_cast<unsigned>(width);
}

/// What is taken from scores in log2 before 2^x, the largest being `largest`: nothing while a row
/// has seen no key, so that its weights are 2^-inf and not NaN.
template <typename Float>
ATTN_HOST_DEVICE Float softmax_shift(Float largest, Float infinity) {
  return largest == -infinity ? Float(0) : largest;
}

/// What a thread's probabilities of a step may add up to before their shift is raised to the rows'
/// maxima: none is larger, and float16 holds it.
inline constexpr float kHopperMostSum = 16384.0f;

}  // namespace attn::gpu
