//! Which files are copied, and how much of that is really done.

use std::os::unix::ffi::OsStringExt as _;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::copy::{BytePath, CopyOptions, Exclude, Links, Skip};

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Selection {
    /// Copy links as links; otherwise what they lead to is copied
    #[arg(long)]
    links: bool,

    /// Leave out what fits GLOB, directories with all that lies in them: a name, the end of a path (`a/*.o`), a path from
    /// the source's name on (`/site/cache`), or a directory (`cache/`); may be repeated
    #[arg(long, value_name = "GLOB", value_parser = OsStringValueParser::new().try_map(|glob| Exclude::new(BytePath::new(glob.into_vec()))))]
    exclude: Vec<Exclude>,

    /// Skip files that the target has as new or newer
    #[arg(long, conflicts_with = "skip_same")]
    newer: bool,

    /// Skip files that the target has with the same size and time; use it with -p, which keeps the time
    #[arg(long)]
    skip_same: bool,

    /// Copy nothing; print what would be copied, and the name that it would get, one file a line
    #[arg(long)]
    dry_run: bool,
}

impl Selection {
    pub(super) fn apply(&self, options: CopyOptions) -> CopyOptions {
        let links = if self.links { Links::Keep } else { Links::Follow };
        let skip = match (self.newer, self.skip_same) {
            (true, _) => Skip::Newer,
            (false, true) => Skip::Same,
            (false, false) => Skip::Nothing,
        };
        let options = self.exclude.iter().cloned().fold(options, CopyOptions::exclude);
        options.links(links).skip(skip).dry_run(self.dry_run)
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}
