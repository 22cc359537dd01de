// Prints docs/variants.md: write_variants > docs/variants.md.

#include <iostream>

#include "tests/variants/variants_table.h"

int main() { std::cout << attn::variants::markdown(attn::variants::proven_rows()); }
