//! From ledger, fleet and policy to commands and holds.
