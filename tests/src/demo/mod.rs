pub mod binomial;
pub mod figures;
pub mod screen;
pub mod svg;
