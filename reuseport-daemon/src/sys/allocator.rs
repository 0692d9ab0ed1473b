//! glibc's allocator.

/// Has all threads allocate from one arena. Each thread that meets another one in its own gets a new
/// one, up to eight for each processor, and each of them keeps its part of the peak: after a thousand
/// clients at once that is 18 MB of them instead of 13 (`exhaustion::a_thousand`), for the sake of
/// threads that seldom allocate at the same moment.
///
/// It counts from the next allocation of a thread that has none yet, and so is best called first. See
/// `M_ARENA_MAX` in mallopt(3).
pub fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "no crate here has mallopt")]
    // SAFETY: it takes two numbers. It fails for none of these, and would change nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
