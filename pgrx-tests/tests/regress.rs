//! SQL scripts whose output is known: regress/sql/X.sql prints regress/expected/X.out, on every version.
//!
//! `SHADOWPART_REGRESS_ACCEPT=1` writes what is printed as what is expected; look at the difference.

use shadowpart_tests::*;
use std::path::Path;
use std::process::Stdio;

/// What psql prints, messages in their place among the results: both go to one file.
fn output(server: &Server, database: &str, script: &Path) -> Result<String> {
    let printed = tempfile::NamedTempFile::new()?;
    server
        .tool("psql", database)
        .args(["-X", "-a", "-q", "-v", "VERBOSITY=default", "-f"])
        .arg(script)
        .stdin(Stdio::null())
        .stdout(printed.as_file().try_clone()?)
        .stderr(printed.as_file().try_clone()?)
        .status()?;
    let text = std::fs::read_to_string(printed.path())?;
    // Messages begin with the path of the script.
    Ok(text.replace(&format!("psql:{}:", script.display()), "psql:"))
}

fn first_difference(expected: &str, found: &str) -> String {
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    match lines.find(|(_, (e, f))| e != f) {
        Some((n, (e, f))) => format!("line {}: expected\n  {e}\nfound\n  {f}", n + 1),
        None => format!(
            "{} lines expected, {} found",
            expected.lines().count(),
            found.lines().count()
        ),
    }
}

#[test]
fn scripts_print_what_they_should() {
    scenario(Settings::default(), |server| {
        server.tablespace("fast")?;
        let mut scripts: Vec<_> = std::fs::read_dir(package().join("regress").join("sql"))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<_>>()?;
        scripts.sort();
        ensure!(!scripts.is_empty(), "no scripts");
        let mut wrong = Vec::new();
        for script in scripts {
            let name = script
                .file_stem()
                .context("a name")?
                .to_string_lossy()
                .into_owned();
            let database = format!("regress_{name}");
            let mut session = server.connect()?;
            session.run(&format!("CREATE DATABASE {database}"))?;
            server
                .connect_to(&database)?
                .run("CREATE EXTENSION shadowpart")?;
            let found = output(server, &database, &script)?;
            let expected = package()
                .join("regress")
                .join("expected")
                .join(format!("{name}.out"));
            if std::env::var_os("SHADOWPART_REGRESS_ACCEPT").is_some() {
                std::fs::write(&expected, &found)?;
            }
            let wanted = std::fs::read_to_string(&expected)
                .with_context(|| format!("read {}", expected.display()))?;
            if wanted != found {
                wrong.push(format!(
                    "{name}: {}\n{found}",
                    first_difference(&wanted, &found)
                ));
            }
            session.run(&format!("DROP DATABASE {database} WITH (FORCE)"))?;
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
        Ok(())
    });
}
