//! Does the comparison with stable keep its promises? Simulated rollouts say how often it's wrong, and how soon it's right, beside what others do.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `method` | what is judged: the product's own comparison, and the peers |
//! | `peers` | fixed thresholds, and a Mann–Whitney test that is repeated |
//! | `play` | the rollouts, on all cores |
//! | `bound` | what the counts of a simulation prove |
//! | `report` | figures, for a terminal, a file and `docs/analysis.md` |
//! | `plot` | `docs/analysis.svg` |

pub mod bound;
pub mod method;
pub mod options;
pub mod peers;
pub mod play;
pub mod plot;
pub mod report;
