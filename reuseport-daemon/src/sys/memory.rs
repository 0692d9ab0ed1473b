//! Memory that was needed once.

/// Gives memory back to the kernel that has been freed. To be called after aya has loaded an object: it
/// reads the kernel's own type information for that, some twenty megabytes, and the allocator keeps
/// what a thread other than the first has freed.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator's own function")]
    {
        // SAFETY: it takes a number and touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}
