//! Marks along the usual packet's path, for `cargo xtask bench --steps`: it measures builds that end at a mark, or that leave something out. In what ships none of
//! them is an instruction.

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use splitter_ebpf::bench::Step;

/// What this build was made for; `None` in what ships.
const BUILD: Option<Step> = match option_env!("SPLITTER_STEP") {
    None => None,
    Some(name) => match Step::named(name) {
        Some(step) => Some(step),
        None => panic!("SPLITTER_STEP is no step's name"),
    },
};

const fn is(step: Step) -> bool {
    match BUILD {
        Some(build) => build as u8 == step as u8,
        None => false,
    }
}

/// Ends the program in the build that is to end here. `found` is the step's result, so that nothing of the step is left for later; it's less than its type's maximum.
///
/// What comes behind stays in the build, for the compiler knows nothing of the end: so all before is the code that ships, by the instruction.
#[inline(always)]
pub fn end(step: Step, found: impl FnOnce() -> u64) {
    if is(step) {
        let found = found();
        // SAFETY: returns from the program, to which no frame on the stack and no destructor belongs. The condition is there because the
        // verifier refuses a program of which a part can't be reached by any jump.
        unsafe {
            asm!(
                "if {found} == -1 goto +2",
                "r0 = {action}",
                "exit",
                found = in(reg) found,
                action = const XDP_DROP,
                out("r0") _,
            );
        }
    }
}

/// Whether this build does without.
#[inline(always)]
pub const fn without(step: Step) -> bool {
    is(step)
}
