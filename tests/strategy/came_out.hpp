// SPDX-License-Identifier: MIT
// What a call came to, in a word that a table can hold.

#pragma once

#include <idem/outcome.hpp>

#include <exception>
#include <string>

inline std::string name_of(idem::Fault fault) {
    switch (fault) {
    case idem::Fault::unavailable:
        return "store unavailable";
    case idem::Fault::in_doubt:
        return "store in doubt";
    case idem::Fault::lease_lost:
        return "lease lost";
    case idem::Fault::rejected:
        return "store rejected";
    }
    return "?";
}

/// The outcome's status, or what was thrown: a StoreError's fault, else what().
template <class Call>
std::string came_out(const Call& call) {
    try {
        return std::string(to_string(call().status()));
    } catch (const idem::StoreError& error) {
        return name_of(error.fault());
    } catch (const std::exception& error) {
        return error.what();
    } catch (int number) {
        return "int " + std::to_string(number);
    }
}

inline std::string name_of(idem::Action action) {
    switch (action) {
    case idem::Action::ack:
        return "ack";
    case idem::Action::retry:
        return "retry";
    case idem::Action::dead_letter:
        return "dead-letter";
    case idem::Action::stop:
        return "stop";
    }
    return "?";
}
