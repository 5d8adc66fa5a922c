// SPDX-License-Identifier: MIT
// The testing component: the laws of a store, run by somebody else's program.

#include <idem/store/memory.hpp>
#include <idem/testing/store_contract.hpp>

#include <thread>

struct Harness : idem::testing::Differences {
    using Store = idem::MemoryStore;
    Store& store() { return store_; }
    static void let_lease_pass(idem::milliseconds lease) { std::this_thread::sleep_for(lease); }

private:
    Store store_;
};

namespace idem::testing {
INSTANTIATE_TYPED_TEST_SUITE_P(Consumer, RecordContract, Harness);
} // namespace idem::testing

int main(int count, char** words) {
    ::testing::InitGoogleTest(&count, words);
    return RUN_ALL_TESTS();
}
