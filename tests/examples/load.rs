//! Scratch.
use aya::{EbpfLoader, programs::Xdp, VerifierLogLevel};
fn main() {
    let data = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    for name in ["splitter", "splitter_frags", "splitter_pass", "splitter_clock"] {
    let dir = format!("/sys/fs/bpf/scratch{}", std::process::id());
    std::fs::create_dir_all(&dir).unwrap();
    let mut e = match EbpfLoader::new().verifier_log_level(VerifierLogLevel::VERBOSE|VerifierLogLevel::STATS).default_map_pin_directory(&dir).load(&data) { Ok(e)=>e, Err(x)=>{ println!("{x:?}"); std::process::exit(1)} };
    let p: &mut Xdp = e.program_mut(name).unwrap().try_into().unwrap();
    let t = std::time::Instant::now();
    match p.load() { Ok(()) => println!("{name}: ok {:?} insns verified, {:?} xlated bytes {:?}", p.info().unwrap().verified_instruction_count(), p.info().unwrap().size_translated(), t.elapsed()),
      Err(x) => { let s = format!("{x}"); let n = s.len(); println!("{name}: FAIL {n} bytes\n...{}", &s[n.saturating_sub(6000)..]); } }
    std::fs::remove_dir_all(&dir).unwrap();
    }
}
