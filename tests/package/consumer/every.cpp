// SPDX-License-Identifier: MIT
// All headers of the components in two files of one program: nothing is defined twice.

#include "every.hpp" // written by CMakeLists.txt

const void* address_in_the_other_file();

int main() {
    return &idem::library_version == address_in_the_other_file() ? 0 : 1;
}
