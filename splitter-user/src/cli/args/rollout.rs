//! The words of `splitter rollout`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use super::Output;
use crate::model::ServiceName;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RolloutCommand {
    /// Begin a rollout
    ///
    /// Takes the service through the steps of its plan, `[service.rollout]` in the configuration. The plan counts as it is now: a
    /// change to it counts from the next start on. Backends that the last promotion took out of use get connections again, as the canary.
    ///
    /// Example: `splitter rollout start web`
    Start(RolloutName),

    /// Stay at this weight until `resume`
    ///
    /// The canary is judged all the same: a breach flips a paused rollout as well. The deadline goes on.
    ///
    /// Example: `splitter rollout pause web`
    Pause(RolloutName),

    /// Let a paused rollout go on
    ///
    /// It goes on where it was, with what was left of the step. If it was paused because the canary was found worse (`on_breach = "pause"`), what was
    /// found is forgotten, and the comparison begins anew.
    ///
    /// Example: `splitter rollout resume web`
    Resume(RolloutName),

    /// Leave this step early, or all that remain
    ///
    /// On to the next step or its gate, without waiting for this one's time or verdict; at a gate, the same as `approve`. With `--full`, the canary's backends become stable now.
    ///
    /// Example: `splitter rollout promote web --full`
    Promote {
        #[command(flatten)]
        name: RolloutName,

        /// Leave out all remaining steps: the canary becomes stable now
        #[arg(long)]
        full: bool,
    },

    /// Give a rollout up
    ///
    /// The weight goes to 0, established canary connections are kept. Ends a flip that the service has since its rollout was flipped.
    /// To have established canary connections reset, `splitter flip` first.
    ///
    /// Example: `splitter rollout abort web`
    Abort(RolloutName),

    /// Begin again with the first step after a flip or an abort
    ///
    /// Takes the flip back, arms the breaker, and begins another rollout, by the plan that counts now.
    ///
    /// Example: `splitter rollout retry web`
    Retry(RolloutName),

    /// Open the gate that a rollout waits at
    ///
    /// Example: `splitter rollout approve web`
    Approve(RolloutName),

    /// Show a rollout: its plan, its numbers, what comes next
    ///
    /// Shows the rollout that goes on, or the last one: the plan with the step that it is in, the verdict, how the cohorts did, how much evidence there is against the
    /// canary and how much would be proof (each mark of a bar is a tenth of the way, in powers), the checks, what happens next, and what happened last.
    ///
    /// Example: `splitter rollout status web --watch`
    Status {
        /// The service
        service: ServiceName,

        /// Show it again every second
        #[arg(long)]
        watch: bool,

        #[command(flatten)]
        output: Output,
    },

    /// Wait until a rollout has ended, for pipelines
    ///
    /// Prints a line whenever something changes, and ends with 0 when the rollout is promoted, 7 when it is flipped, 8 when it is aborted, 9 when it waits at a gate that
    /// only a person opens, 10 when the time is up. While it is paused, it is waited for. An agent that is restarted or replaced meanwhile is waited for, too, for as long as
    /// `--agent-away` says. As JSON, the whole status, one a line.
    ///
    /// Example: `splitter rollout start web && splitter rollout wait web --timeout 6h`
    Wait {
        /// The service
        service: ServiceName,

        /// End with 10 after so long
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,

        /// Wait at gates as well, until somebody approves
        #[arg(long)]
        past_gates: bool,

        /// So long may the agent not answer
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
        agent_away: Duration,

        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct RolloutName {
    /// The service
    pub service: ServiceName,

    #[command(flatten)]
    pub output: Output,
}
