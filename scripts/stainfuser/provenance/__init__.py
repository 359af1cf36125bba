"""Records of jobs, read again: the ledger, the audit, the picture of descent and the RO-Crate."""
