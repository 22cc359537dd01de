/* A plug-in with one thing wrong that is found when it is loaded; which one is a macro. */
#include "harness/backends/attn_plugin.h"

#ifndef MAJOR
#define MAJOR ATTN_PLUGIN_ABI_MAJOR
#endif
#ifndef MINOR
#define MINOR ATTN_PLUGIN_ABI_MINOR
#endif
#ifndef MORE_CALL
#define MORE_CALL 0
#endif
#ifndef RUN
#define RUN run
#endif

static int query(void *self, const attn_config *config, attn_capability *capability,
                 char *message) {
  (void)self, (void)config, (void)capability, (void)message;
  return ATTN_OK;
}

int run(void *self, void *plan, const attn_call *call, char *message);
int run(void *self, void *plan, const attn_call *call, char *message) {
  (void)self, (void)plan, (void)call, (void)message;
  return ATTN_OK;
}

static const attn_plugin kPlugin = {MAJOR,
                                    MINOR,
                                    sizeof(attn_plugin),
                                    sizeof(attn_config),
                                    sizeof(attn_call) + MORE_CALL,
                                    sizeof(attn_capability),
                                    "version",
                                    "",
                                    NULL,
                                    NULL,
                                    query,
                                    NULL,
                                    RUN,
                                    NULL};

#ifdef NO_SYMBOL
ATTN_PLUGIN_EXPORT const attn_plugin *another_entry(void);
const attn_plugin *another_entry(void) { return &kPlugin; }
#elif defined(NULL_ENTRY)
const attn_plugin *attn_plugin_entry(void) { return MAJOR == 0 ? &kPlugin : NULL; }
#elif defined(MISSING_LIBRARY_FUNCTION)
int nowhere_to_be_found(void);
const attn_plugin *attn_plugin_entry(void) { return nowhere_to_be_found() ? &kPlugin : NULL; }
#else
const attn_plugin *attn_plugin_entry(void) { return &kPlugin; }
#endif
