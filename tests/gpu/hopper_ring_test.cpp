// The Hopper prefill kernel's barriers: its warps as lists of waits, arrivals, fills and reads,
// played in random orders. Nothing hangs, nothing is read before it is there, nothing is filled
// while it is read. The lists say what attention_hopper.cuh does, by its parities and counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gpu/kernels/hopper_work.h"

namespace attn::gpu {
namespace {

enum class Ring { kTile, kKeys, kValues, kQueries, kBegun, kTail, kRows };
using Name = std::pair<Ring, int>;

/// A place that is filled and read: a slot of a ring.
struct Event {
  enum class Kind { kWaitFull, kWaitEmpty, kArriveFull, kArriveEmpty, kFill, kRead };
  Kind kind;
  Name name;
  unsigned parity = 0;
  int content = 0;       ///< of a fill or read
  bool is_copy = false;  ///< kFill: lands later, and then completes the announced barrier
};
using Role = std::vector<Event>;

struct Barrier {
  int count = 1;
  int pending = 1;
  int bytes = 0;  ///< copies under way
  unsigned phase = 0;
  void settle() {
    if (pending > 0 || bytes > 0) return;
    pending = count;
    phase ^= 1;
  }
  /// mbarrier.try_wait.parity: the phase of that parity is over.
  bool passed(unsigned parity) const { return phase != parity; }
};

struct Player {
  Role events;
  std::size_t next = 0;
};

/// Plays the roles; "" or what went wrong.
class Machine {
 public:
  explicit Machine(std::vector<Role> roles) {
    for (Role& role : roles) players_.push_back({std::move(role), 0});
  }
  void count(Ring ring, int slot, int full, int empty) {
    full_[{ring, slot}] = {full, full, 0, 0};
    empty_[{ring, slot}] = {empty, empty, 0, 0};
  }
  std::string play(std::mt19937& random) {
    while (true) {
      std::vector<std::size_t> able;
      bool done = true;
      for (std::size_t p = 0; p < players_.size(); ++p) {
        const Player& player = players_[p];
        if (player.next == player.events.size()) continue;
        done = false;
        if (can(player.events[player.next])) able.push_back(p);
      }
      const std::size_t choices = able.size() + (copies_.empty() ? 0 : 1);
      if (choices == 0) return done ? "" : "hangs";
      const auto chosen = std::uniform_int_distribution<std::size_t>(0, choices - 1)(random);
      if (chosen == able.size()) {
        land(random);
      } else {
        Player& player = players_[able[chosen]];
        take(player.events[player.next++]);
      }
      if (!wrong_.empty()) return wrong_;
    }
  }

 private:
  struct Copy {
    Name name;
    int content;
    Name barrier;
  };
  bool can(const Event& e) {
    using Kind = Event::Kind;
    if (e.kind == Kind::kWaitFull) return full_.at(e.name).passed(e.parity);
    if (e.kind == Kind::kWaitEmpty) return empty_.at(e.name).passed(e.parity);
    return true;
  }
  void take(const Event& e) {
    using Kind = Event::Kind;
    if (e.kind == Kind::kArriveFull || e.kind == Kind::kArriveEmpty) {
      Barrier& barrier = (e.kind == Kind::kArriveFull ? full_ : empty_).at(e.name);
      --barrier.pending;
      if (barrier.pending < 0) wrong_ = "more arrivals than a phase has";
      barrier.settle();
    } else if (e.kind == Kind::kFill && e.is_copy) {
      // Values of a tail count on their own barrier.
      const Name on = e.parity == 2 ? Name{Ring::kTail, 0} : e.name;
      ++full_.at(on).bytes;
      held_.erase(e.name);
      copies_.push_back({e.name, e.content, on});
    } else if (e.kind == Kind::kFill) {
      held_[e.name] = e.content;
    } else if (e.kind == Kind::kRead) {
      const auto found = held_.find(e.name);
      if (found == held_.end() || found->second != e.content) wrong_ = "reads another step's";
    }
  }
  void land(std::mt19937& random) {
    const auto i = std::uniform_int_distribution<std::size_t>(0, copies_.size() - 1)(random);
    const Copy copy = copies_[i];
    copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(i));
    held_[copy.name] = copy.content;
    Barrier& barrier = full_.at(copy.barrier);
    --barrier.bytes;
    barrier.settle();
  }

  std::vector<Player> players_;
  std::map<Name, Barrier> full_, empty_;
  std::map<Name, int> held_;
  std::vector<Copy> copies_;
  std::string wrong_;
};

struct Tile {
  int steps = 0;
  bool tail = false;  ///< its first step's values are not handed on as they come
};

using Kind = Event::Kind;
int content(std::size_t tile, int step) { return static_cast<int>(tile) * 100 + step; }
/// `slots`: of the ring.
Event wait_full(Ring ring, int position, int slots) {
  return {Kind::kWaitFull, {ring, ring_slot(position, slots)}, ring_full_parity(position, slots)};
}
Event wait_empty(Ring ring, int position, int slots) {
  return {Kind::kWaitEmpty, {ring, ring_slot(position, slots)}, ring_empty_parity(position, slots)};
}
Event arrive_full(Ring ring, int slot) { return {Kind::kArriveFull, {ring, slot}}; }
Event arrive_empty(Ring ring, int slot) { return {Kind::kArriveEmpty, {ring, slot}}; }

/// Warp 2 of the producer. Tiles behind the last: the end.
Role drawing(const std::vector<Tile>& tiles) {
  Role role;
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    const auto turn = static_cast<int>(t);
    role.push_back(wait_empty(Ring::kTile, turn, kHopperTileSlots));
    role.push_back(
        {Kind::kFill, {Ring::kTile, ring_slot(turn, kHopperTileSlots)}, 0, content(t, 0)});
    role.push_back(arrive_full(Ring::kTile, ring_slot(turn, kHopperTileSlots)));
    if (t < tiles.size()) {
      role.push_back({Kind::kWaitFull, {Ring::kBegun, 0}, static_cast<unsigned>(turn % 2)});
    }
  }
  return role;
}

void read_tile(Role& role, std::size_t t) {
  const auto turn = static_cast<int>(t);
  role.push_back(wait_full(Ring::kTile, turn, kHopperTileSlots));
  role.push_back({Kind::kRead, {Ring::kTile, ring_slot(turn, kHopperTileSlots)}, 0, content(t, 0)});
}

/// Warp 3: what the tile's rows see.
Role telling(const std::vector<Tile>& tiles) {
  Role role;
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    const int slot = ring_slot(static_cast<int>(t), kHopperTileSlots);
    read_tile(role, t);
    role.push_back({Kind::kFill, {Ring::kRows, slot}, 0, content(t, 0)});
    role.push_back(arrive_full(Ring::kRows, slot));
    role.push_back(arrive_empty(Ring::kTile, slot));
  }
  return role;
}

/// Warp 0: keys and queries.
Role keys(const std::vector<Tile>& tiles, int stages) {
  Role role;
  int position = 0;
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    const auto turn = static_cast<int>(t);
    read_tile(role, t);
    role.push_back(arrive_empty(Ring::kTile, ring_slot(turn, kHopperTileSlots)));
    if (t == tiles.size()) break;
    role.push_back(arrive_full(Ring::kBegun, 0));
    const auto queries = [&] {
      for (int g = 0; g < kHopperGroups; ++g) {
        role.push_back(
            {Kind::kWaitEmpty, {Ring::kQueries, g}, static_cast<unsigned>(turn % 2 ^ 1)});
        if (tiles[t].steps > 0) {
          role.push_back({Kind::kFill, {Ring::kQueries, g}, 0, content(t, 0), true});
        }
        role.push_back(arrive_full(Ring::kQueries, g));
      }
    };
    for (int i = 0; i < tiles[t].steps; ++i, ++position) {
      const int slot = ring_slot(position, stages);
      role.push_back(wait_empty(Ring::kKeys, position, stages));
      role.push_back({Kind::kFill, {Ring::kKeys, slot}, 0, content(t, i), true});
      role.push_back(arrive_full(Ring::kKeys, slot));
      if (i == 0) queries();
    }
    if (tiles[t].steps == 0) queries();
  }
  return role;
}

/// Warp 1: values.
Role values(const std::vector<Tile>& tiles, int stages) {
  Role role;
  int position = 0;
  unsigned tails = 0;
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    read_tile(role, t);
    role.push_back(arrive_empty(Ring::kTile, ring_slot(static_cast<int>(t), kHopperTileSlots)));
    if (t == tiles.size()) break;
    for (int i = 0; i < tiles[t].steps; ++i, ++position) {
      const int slot = ring_slot(position, stages);
      const bool tail = tiles[t].tail && i == 0;
      role.push_back(wait_empty(Ring::kValues, position, stages));
      role.push_back({Kind::kFill, {Ring::kValues, slot}, tail ? 2U : 0U, content(t, i), true});
      if (tail) {
        role.push_back(arrive_full(Ring::kTail, 0));
        role.push_back({Kind::kWaitFull, {Ring::kTail, 0}, tails++ % 2});
        role.push_back({Kind::kRead, {Ring::kValues, slot}, 0, content(t, i)});
      }
      role.push_back(arrive_full(Ring::kValues, slot));
    }
  }
  return role;
}

/// Where codes are widened four warps fill a place, each its part: a name of its own.
constexpr int kWideners = 4;
int part_of(int slot, int warp) { return slot + 100 * (warp + 1); }

/// Warp `warp` of those that widen codes (attention_hopper_codes.cuh). Warp 0 asks for the queries,
/// warp 1 draws.
Role widener(const std::vector<Tile>& tiles, int warp, int stages) {
  Role role;
  int position = 0;
  const auto announce = [&](std::size_t t) {
    if (warp != 1) return;
    const auto turn = static_cast<int>(t);
    const int slot = ring_slot(turn, kHopperTileSlots);
    role.push_back(wait_empty(Ring::kTile, turn, kHopperTileSlots));
    role.push_back({Kind::kFill, {Ring::kTile, slot}, 0, content(t, 0)});
    role.push_back(arrive_full(Ring::kTile, slot));
  };
  announce(0);
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    const auto turn = static_cast<int>(t);
    const int tile_slot = ring_slot(turn, kHopperTileSlots);
    read_tile(role, t);
    role.push_back({Kind::kFill, {Ring::kRows, part_of(tile_slot, warp)}, 0, content(t, 0)});
    role.push_back(arrive_full(Ring::kRows, tile_slot));
    if (t == tiles.size()) break;
    const int steps = tiles[t].steps;
    for (int g = 0; warp == 0 && g < kHopperGroups; ++g) {
      role.push_back({Kind::kWaitEmpty, {Ring::kQueries, g}, static_cast<unsigned>(turn % 2 ^ 1)});
      if (steps > 0) role.push_back({Kind::kFill, {Ring::kQueries, g}, 0, content(t, 0), true});
      role.push_back(arrive_full(Ring::kQueries, g));
    }
    for (int i = 0; i < steps; ++i, ++position) {
      const int slot = ring_slot(position, stages);
      for (const Ring ring : {Ring::kKeys, Ring::kValues}) {
        role.push_back(wait_empty(ring, position, stages));
        role.push_back({Kind::kFill, {ring, part_of(slot, warp)}, 0, content(t, i)});
        role.push_back(arrive_full(ring, slot));
        if (ring == Ring::kKeys && i == std::min(stages, steps - 1)) announce(t + 1);
      }
    }
    if (steps == 0) announce(t + 1);
    role.push_back({Kind::kRead, {Ring::kTile, tile_slot}, 0, content(t, 0)});
    role.push_back(arrive_empty(Ring::kTile, tile_slot));
  }
  return role;
}

/// A warp of a consumer warpgroup. `coded`: of what four warps fill.
Role consumer(const std::vector<Tile>& tiles, int group, int stages, bool coded = false) {
  Role role;
  int before = 0;
  const auto look = [&](Ring ring, int slot, int what) {
    for (int warp = 0; warp < (coded ? kWideners : 1); ++warp) {
      role.push_back({Kind::kRead, {ring, coded ? part_of(slot, warp) : slot}, 0, what});
    }
  };
  for (std::size_t t = 0; t <= tiles.size(); ++t) {
    const auto turn = static_cast<int>(t);
    const auto read_rows = [&] {
      role.push_back(
          {Kind::kRead, {Ring::kTile, ring_slot(turn, kHopperTileSlots)}, 0, content(t, 0)});
      look(Ring::kRows, ring_slot(turn, kHopperTileSlots), content(t, 0));
    };
    role.push_back(wait_full(Ring::kRows, turn, kHopperTileSlots));
    read_rows();
    if (t == tiles.size()) break;
    const int steps = tiles[t].steps;
    role.push_back({Kind::kWaitFull, {Ring::kQueries, group}, static_cast<unsigned>(turn % 2)});
    const auto await_keys = [&](int i) {
      if (i < steps) role.push_back(wait_full(Ring::kKeys, before + i, stages));
    };
    const auto scores = [&](int i) {
      role.push_back({Kind::kRead, {Ring::kQueries, group}, 0, content(t, 0)});
      look(Ring::kKeys, ring_slot(before + i, stages), content(t, i));
    };
    const auto outputs = [&](int i) {
      role.push_back(wait_full(Ring::kValues, before + i, stages));
      look(Ring::kValues, ring_slot(before + i, stages), content(t, i));
    };
    const auto leave_queries = [&] {
      role.push_back({Kind::kRead, {Ring::kQueries, group}, 0, content(t, 0)});
      role.push_back(arrive_empty(Ring::kQueries, group));
    };
    const auto read = [&](Ring ring, int i) {  // the products are over: read to the end
      const int slot = ring_slot(before + i, stages);
      look(ring, slot, content(t, i));
      role.push_back(arrive_empty(ring, slot));
      if (ring == Ring::kKeys && i == steps - 1) leave_queries();
    };
    if (steps == 0) role.push_back(arrive_empty(Ring::kQueries, group));
    if (steps > 0) {
      await_keys(0);
      scores(0);
      read(Ring::kKeys, 0);
      await_keys(1);
      for (int i = 1; i < steps; ++i) {
        scores(i);
        outputs(i - 1);
        read(Ring::kKeys, i);
        await_keys(i + 1);
        read(Ring::kValues, i - 1);
      }
      outputs(steps - 1);
      read(Ring::kValues, steps - 1);
    }
    read_rows();
    role.push_back(arrive_empty(Ring::kTile, ring_slot(turn, kHopperTileSlots)));
    before += steps;
  }
  return role;
}

std::string play(const std::vector<Tile>& tiles, std::mt19937& random, int stages, int key_readers,
                 int tile_readers) {
  std::vector<Role> roles{drawing(tiles), telling(tiles), keys(tiles, stages),
                          values(tiles, stages)};
  for (int warp = 0; warp < kHopperReaders; ++warp) {
    roles.push_back(consumer(tiles, warp / kHopperQueryReaders, stages));
  }
  Machine machine(std::move(roles));
  for (int i = 0; i < kHopperTileSlots; ++i) {
    machine.count(Ring::kTile, i, 1, tile_readers);
    machine.count(Ring::kRows, i, 1, 1);
  }
  for (int i = 0; i < stages; ++i) {
    machine.count(Ring::kKeys, i, 1, key_readers);
    machine.count(Ring::kValues, i, 1, kHopperReaders);
  }
  for (int i = 0; i < kHopperGroups; ++i) machine.count(Ring::kQueries, i, 1, kHopperQueryReaders);
  machine.count(Ring::kBegun, 0, 1, 1);
  machine.count(Ring::kTail, 0, 1, 1);
  return machine.play(random);
}

std::string play_codes(const std::vector<Tile>& tiles, std::mt19937& random, int stages,
                       int fillers, int tile_readers) {
  std::vector<Role> roles;
  for (int warp = 0; warp < kWideners; ++warp) roles.push_back(widener(tiles, warp, stages));
  for (int warp = 0; warp < kHopperReaders; ++warp) {
    roles.push_back(consumer(tiles, warp / kHopperQueryReaders, stages, true));
  }
  Machine machine(std::move(roles));
  for (int i = 0; i < kHopperTileSlots; ++i) {
    machine.count(Ring::kTile, i, 1, tile_readers);
    machine.count(Ring::kRows, i, kWideners, 1);
  }
  for (int i = 0; i < stages; ++i) {
    machine.count(Ring::kKeys, i, fillers, kHopperReaders);
    machine.count(Ring::kValues, i, fillers, kHopperReaders);
  }
  for (int i = 0; i < kHopperGroups; ++i) machine.count(Ring::kQueries, i, 1, kHopperQueryReaders);
  return machine.play(random);
}

std::vector<Tile> random_tiles(std::mt19937& random) {
  const auto draw = [&](int most) { return std::uniform_int_distribution<int>(0, most)(random); };
  std::vector<Tile> tiles(static_cast<std::size_t>(draw(9)));
  for (Tile& tile : tiles) tile = {draw(2) == 0 ? 0 : draw(7), draw(1) == 0};
  return tiles;
}

TEST(HopperRings, HandOnEveryStepInAnyOrder) {
  std::mt19937 random(1);
  for (int repeat = 0; repeat < 1500; ++repeat) {
    const std::vector<Tile> tiles = random_tiles(random);
    const int slabs = 1 + repeat % 4;
    ASSERT_EQ(play(tiles, random, hopper_stages(slabs), kHopperReaders, kHopperTileReaders), "")
        << repeat;
  }
}

TEST(HopperRings, HandOnWidenedCodesInAnyOrder) {
  std::mt19937 random(3);
  constexpr int kTileReaders = kHopperReaders + kWideners;
  for (int repeat = 0; repeat < 1500; ++repeat) {
    const std::vector<Tile> tiles = random_tiles(random);
    const int stages = hopper_stages(std::array{1, 2, 4}[static_cast<std::size_t>(repeat % 3)]);
    ASSERT_EQ(play_codes(tiles, random, stages, kWideners, kTileReaders), "") << repeat;
  }
  const std::vector<Tile> tiles{{5, true}, {0, false}, {3, false}, {4, true}};
  const auto fails = [&](int fillers, int tile_readers) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      if (!play_codes(tiles, random, 2, fillers, tile_readers).empty()) return true;
    }
    return false;
  };
  EXPECT_FALSE(fails(kWideners, kTileReaders));
  EXPECT_TRUE(fails(kWideners - 1, kTileReaders));
  EXPECT_TRUE(fails(kWideners + 1, kTileReaders));
  EXPECT_TRUE(fails(kWideners, kTileReaders - 1));
  EXPECT_TRUE(fails(kWideners, kTileReaders + 1));
}

TEST(HopperRings, OfOtherCountsFail) {
  std::mt19937 random(2);
  const std::vector<Tile> tiles{{5, true}, {0, false}, {3, false}, {4, true}};
  const auto fails = [&](int key_readers, int tile_readers) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      if (!play(tiles, random, 2, key_readers, tile_readers).empty()) return true;
    }
    return false;
  };
  EXPECT_FALSE(fails(kHopperReaders, kHopperTileReaders));
  EXPECT_TRUE(fails(kHopperReaders + 1, kHopperTileReaders));
  EXPECT_TRUE(fails(kHopperReaders - 1, kHopperTileReaders));
  EXPECT_TRUE(fails(kHopperReaders, kHopperTileReaders + 1));
  EXPECT_TRUE(fails(kHopperReaders, kHopperTileReaders - 1));
}

}  // namespace
}  // namespace attn::gpu
