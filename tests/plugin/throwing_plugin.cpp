// Breaks the rule that nothing is thrown across the interface.
#include <new>
#include <stdexcept>
#include <string>

#include "harness/backends/attn_plugin.h"

namespace {

std::string g_what;

int create(const char* options, void** self, char*) {
  g_what = options;
  *self = nullptr;
  return ATTN_OK;
}

int query(void*, const attn_config*, attn_capability*, char*) { return ATTN_OK; }

int run(void*, void*, const attn_call*, char*) {
  if (g_what == "number") throw 42;
  if (g_what == "memory") throw std::bad_alloc();
  throw std::runtime_error("no such tile");
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const attn_plugin* attn_plugin_entry(void) {
  static const attn_plugin plugin = {
      ATTN_PLUGIN_VERSION, "throwing", "throws", create, nullptr, query, nullptr, run, nullptr};
  return &plugin;
}
