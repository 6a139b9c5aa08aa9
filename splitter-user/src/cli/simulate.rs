//! `splitter simulate`: in this process, without an agent.

use std::{
    fs,
    io::{IsTerminal as _, stderr},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    Io,
    args::Simulate,
    failure::{Code, Failure},
    show,
};
use crate::{
    config,
    controller::Cohorts,
    model::{Plan, Service},
    simulate::{Scenario, plot},
};

pub(super) fn run(asked: &Simulate, io: &mut Io<'_>) -> Result<(), Failure> {
    let config = config::load(&asked.plan)?;
    let service = config.services.iter().find(|service| service.name == asked.service);
    let service: &Service = service.ok_or_else(|| {
        let names: Vec<String> = config.services.iter().map(|service| service.name.to_string()).collect();
        Failure::new(Code::NotFound, format!("{}: there is no service `{}`", asked.plan.display(), asked.service))
            .hint(format!("its services are {}", show::joined(&names)))
    })?;
    let plan: Plan = service.rollout.clone().ok_or_else(|| {
        Failure::new(Code::Usage, format!("{}: service `{}` has no plan", asked.plan.display(), asked.service))
            .hint("write [service.rollout] into the configuration: see docs/rollouts.md")
    })?;
    let picture = asked.plot.as_deref().map(|file| Ok::<_, Failure>((file, Format::of(file)?))).transpose()?;

    let scenario = Scenario {
        plan,
        rate: asked.rate,
        failures: Cohorts { stable: asked.stable_failures, canary: asked.canary_failures },
        latency: f64::from(asked.canary_latency.hundredths()) / 100.0,
        every: asked.look,
        runs: asked.runs,
        seed: asked.seed,
    };
    let progress = progress(2 * asked.runs);
    let results = scenario.simulate(&|| progress.inc(1));
    progress.finish_and_clear();
    let report = scenario.report(asked.service.as_str(), &results);
    if let Some((file, format)) = picture {
        let title = format!("{}: {} rollouts", asked.service, asked.runs);
        let svg =
            plot::svg(&title, &results, &steps(&scenario.plan), lasts(&scenario.plan)).map_err(|error| unwritten(file, error))?;
        let picture = match format {
            Format::Svg => svg.into_bytes(),
            Format::Png => png(&svg).map_err(|error| unwritten(file, error))?,
        };
        fs::write(file, picture).map_err(|error| unwritten(file, error))?;
    }
    show::print(io, asked.output, &report, show::simulation)
}

/// When each step begins at the earliest, and what it is.
fn steps(plan: &Plan) -> Vec<(Duration, String)> {
    let begins = plan.steps.iter().scan(Duration::ZERO, |at, step| {
        let begins = *at;
        *at += step.lasts;
        Some((begins, step.to_string()))
    });
    begins.collect()
}

fn lasts(plan: &Plan) -> Duration {
    let sum: Duration = plan.steps.iter().map(|step| step.lasts).sum();
    sum.max(Duration::from_secs(60))
}

/// On a terminal alone.
fn progress(all: u64) -> ProgressBar {
    let target = if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(all), target);
    match ProgressStyle::with_template("{bar:40} {pos} of {len} rollouts, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A picture's form, by its file's name.
#[derive(Clone, Copy)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn of(file: &Path) -> Result<Self, Failure> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some(_) | None => Err(Failure::new(Code::Usage, format!("{}: a picture is FILE.svg or FILE.png", file.display()))),
        }
    }
}

fn png(svg: &str) -> Result<Vec<u8>, String> {
    use resvg::{tiny_skia, usvg};

    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    if fonts.is_empty() {
        return Err("this machine has no fonts: install some (fonts-dejavu-core), or draw FILE.svg".to_owned());
    }
    let family = fonts.faces().find_map(|face| face.families.first().map(|(name, _)| name.clone()));
    fonts.set_sans_serif_family(family.unwrap_or_default());
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size();
    let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("the picture has no size")?;
    resvg::render(&tree, tiny_skia::Transform::default(), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

fn unwritten(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Failed, format!("the picture {} could not be made: {error}", file.display()))
}
