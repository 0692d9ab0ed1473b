//! Clients that are too many, say nothing, or do not listen.
