// SPDX-License-Identifier: MIT
#include "every.hpp"

const void* address_in_the_other_file() {
    return &idem::library_version;
}
