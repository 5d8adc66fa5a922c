// SPDX-License-Identifier: MIT
// expected: idem: this strategy cannot run over this store; the note below names what is missing

#include "stores.hpp"

struct Mine {
    template <class S>
    using Context = idem::NoContext;
    static constexpr idem::Guarantee guarantee(bool) noexcept {
        return idem::Guarantee::at_least_once;
    }
#ifdef RIGHT
    template <class S>
    idem::Verdict run(S&, const idem::Request&, const idem::Work<idem::NoContext>&) const;
#else
    template <class S>
    void run(S&, const idem::Request&, const idem::Work<idem::NoContext>&) const;
#endif
};
idem::IdempotentConsumer consumer{leases, Mine{}};
