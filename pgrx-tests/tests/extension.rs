//! The extension as an object: without the library loaded, dropped, in the hands of other roles.

use shadowpart_tests::*;

/// Without shared_preload_libraries there is one clear error that says what to add.
#[test]
fn without_preload_there_is_one_clear_error() {
    let settings = Settings::default()
        .set("shared_preload_libraries", "")
        .without_extension();
    scenario(settings, |server| {
        let mut session = server.connect()?;
        session.run(
            "CREATE TABLE t (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
             CREATE TABLE t_rest PARTITION OF t DEFAULT",
        )?;
        // CREATE EXTENSION may already refuse, or the first function does.
        let failure = match session.run("CREATE EXTENSION shadowpart") {
            Ok(()) => session.failure("SELECT shadow_manage('t', 'tenant')")?,
            Err(_) => session.failure("CREATE EXTENSION shadowpart")?,
        };
        let text = format!(
            "{} {:?} {:?}",
            failure.message, failure.detail, failure.hint
        );
        ensure!(failure.sqlstate != "XX000", "{failure:?}");
        ensure!(text.contains("shared_preload_libraries"), "{text}");
        ensure!(text.contains("shadowpart"), "{text}");
        Ok(())
    });
}

fn prepare(server: &mut Server) -> Result<(Session, Orders, Twin)> {
    server.tablespace("fast")?;
    let mut session = server.connect()?;
    let orders = Orders::new(LIST);
    let twin = orders.create(&mut session)?;
    orders.fill(&twin, &mut session, 1000)?;
    session.run("SELECT shadow_manage('live.orders', 'tenant')")?;
    Ok((session, orders, twin))
}

/// DROP EXTENSION goes when nothing is shadowed, and is refused with a hint when something is.
#[test]
fn drop_extension() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server)?;
        session.run("DROP EXTENSION shadowpart")?;
        twin.assert_same(&mut session)?;
        session
            .run("CREATE EXTENSION shadowpart; SELECT shadow_manage('live.orders', 'tenant')")?;
        let id = session.create_shadow("live.orders", "1", "fast")?;
        for step in 0..2 {
            let failure = session.failure("DROP EXTENSION shadowpart")?;
            ensure!(
                failure.sqlstate == "2BP01" || failure.sqlstate == "55006",
                "{failure:?}"
            );
            ensure!(
                failure.detail.is_some() && failure.hint.is_some(),
                "{failure:?}"
            );
            orders.write(&twin, &mut session, 1 + step)?;
            twin.assert_same(&mut session)?;
            if step == 0 {
                session.swap(id)?;
            }
        }
        session.finalize(id)?;
        session.run("DROP EXTENSION shadowpart")?;
        orders.write(&twin, &mut session, 3)?;
        twin.assert_same(&mut session)
    });
}

/// CASCADE leaves plain tables that are exact, whatever state the shadows were in, and nothing that
/// would still call the library: the tables are exact without it, too.
#[test]
fn drop_extension_cascade() {
    for state in ["ready", "migrated", "reverted", "building"] {
        scenario(Settings::default(), |server| {
            let (mut session, orders, twin) = prepare(server)?;
            if state == "building" {
                session.run("ALTER SYSTEM SET shadowpart.copy_rate_limit = '16kB'")?;
                session.run("SELECT pg_reload_conf()")?;
                session.start_migrate("live.orders", "1", "fast")?;
                std::thread::sleep(std::time::Duration::from_secs(1));
            } else {
                let id = session.create_shadow("live.orders", "1", "fast")?;
                if state != "ready" {
                    session.swap(id)?;
                }
                if state == "reverted" {
                    session.revert(id)?;
                }
            }
            orders.write(&twin, &mut session, 1)?;
            session.run("DROP EXTENSION shadowpart CASCADE")?;
            twin.assert_same(&mut session).context(state)?;
            orders.write(&twin, &mut session, 2)?;
            twin.assert_same(&mut session).context(state)?;
            let triggers =
                session.number("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")?;
            ensure!(triggers == 0, "{state}: {triggers} triggers left");
            let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'shadowpart'";
            ensure!(session.number(schemas)? == 0, "{state}: the schema is left");

            server.configure("shared_preload_libraries", "")?;
            server.restart(Shutdown::Fast)?;
            let mut session = server.connect()?;
            twin.assert_same(&mut session)
                .with_context(|| format!("{state}, library gone"))?;
            orders.write(&twin, &mut session, 3)?;
            twin.assert_same(&mut session)
                .with_context(|| format!("{state}, library gone"))?;
            // All can be used again as if nothing had been.
            server.configure("shared_preload_libraries", "shadowpart")?;
            server.restart(Shutdown::Fast)?;
            let mut session = server.connect()?;
            session.run(
                "CREATE EXTENSION shadowpart; SELECT shadow_manage('live.orders', 'tenant')",
            )?;
            let there = tablespaces_of(&mut session, "live.orders", "tenant = 1")?;
            let target = if there == ["fast"] {
                "pg_default"
            } else {
                "fast"
            };
            session.migrate("live.orders", "1", target)?;
            orders.write(&twin, &mut session, 4)?;
            twin.assert_same(&mut session)
        });
    }
}

/// The views tell a monitoring role everything and others nothing they may not know; internals are
/// nobody's.
#[test]
fn other_roles() {
    scenario(Settings::default(), |server| {
        let (mut session, _orders, _twin) = prepare(server)?;
        session.run(
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN;
             GRANT USAGE ON SCHEMA live TO watcher, stranger",
        )?;
        let id = session.migrate("live.orders", "1", "fast")?;
        let mut watcher = server.connect_as("watcher")?;
        for view in ["shadow_status", "shadow_progress", "shadow_history"] {
            watcher.rows(&format!("SELECT * FROM {view}"))?;
        }
        ensure!(watcher.state(id)? == "migrated");
        let mut stranger = server.connect_as("stranger")?;
        ensure!(stranger.failure("DELETE FROM shadowpart.managed")?.sqlstate == "42501");
        let writable = session.column(
            "SELECT oid::regclass::text FROM pg_class
             WHERE relnamespace = 'shadowpart'::regnamespace AND relkind IN ('r', 'S', 'v')
               AND CASE relkind WHEN 'S' THEN has_sequence_privilege('stranger', oid, 'USAGE, UPDATE')
                        ELSE has_table_privilege('stranger', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') END",
        )?;
        ensure!(writable.is_empty(), "a stranger may write to {writable:?}");
        let unsafe_definers = session.column(
            "SELECT p.oid::regprocedure::text FROM pg_proc p
             JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
             JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'shadowpart'
             WHERE prosecdef AND NOT coalesce(proconfig::text LIKE '%search_path%', false)",
        )?;
        ensure!(
            unsafe_definers.is_empty(),
            "without search_path: {unsafe_definers:?}"
        );
        let undocumented = session.column(
            "SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d
             JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'shadowpart'
             WHERE d.deptype = 'e' AND refclassid = 'pg_extension'::regclass
               AND ((classid = 'pg_proc'::regclass AND (SELECT pronamespace FROM pg_proc WHERE oid = objid)
                        <> 'shadowpart'::regnamespace)
                    OR (classid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = objid) = 'v'))
               AND obj_description(objid, classid::regclass::name) IS NULL",
        )?;
        ensure!(
            undocumented.is_empty(),
            "without a comment: {undocumented:?}"
        );
        Ok(())
    });
}

/// Operators of a user's own for the types that catalogs are made of.
const EVIL: [&str; 11] = [
    "oid, oid",
    "regclass, oid",
    "regclass, regclass",
    "oid, regclass",
    "name, text",
    "text, name",
    "text, text",
    "name, name",
    "bigint, bigint",
    "int, int",
    "\"char\", \"char\"",
];

/// A temporary table, a function or an operator of a user's in the search path leads the extension nowhere.
#[test]
fn a_hostile_search_path() {
    scenario(Settings::default(), |server| {
        let (mut session, orders, twin) = prepare(server)?;
        session.run(
            "CREATE ROLE owner LOGIN; ALTER SCHEMA live OWNER TO owner; GRANT USAGE ON SCHEMA twin TO owner;
             ALTER TABLE live.orders OWNER TO owner; ALTER TABLE live.orders_a OWNER TO owner;
             ALTER TABLE live.orders_b OWNER TO owner;
             CREATE SCHEMA evil AUTHORIZATION owner",
        )?;
        let mut owner = server.connect_as("owner")?;
        owner.run("CREATE TABLE evil.called (who text, what text)")?;
        for (number, types) in EVIL.iter().enumerate() {
            let (left, right) = types.split_once(", ").context("two types")?;
            owner.run(&format!(
                "CREATE FUNCTION evil.eq_{number}({types}) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO evil.called VALUES (current_user || ' for ' || session_user, '{types}');
                     RETURN $1::text OPERATOR(pg_catalog.=) $2::text;
                 END $$;
                 CREATE OPERATOR evil.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.eq_{number})"
            ))?;
        }
        owner.run(
            "CREATE FUNCTION evil.count(int) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
             CREATE TABLE evil.pg_class (); CREATE TABLE evil.pg_namespace ();
             SET search_path = evil, pg_catalog, public",
        )?;
        let id = owner
            .number("SELECT public.shadow_migrate('live.orders', 1::int, tablespace => 'fast')")?;
        owner.run(&format!("SELECT public.shadow_revert({id})"))?;
        owner.run(&format!("SELECT public.shadow_swap({id})"))?;
        ensure!(
            owner
                .rows(&format!("SELECT * FROM public.shadow_verify({id})"))?
                .is_empty()
        );
        owner.run(&format!("SELECT public.shadow_finalize({id})"))?;
        let called =
            session.column("SELECT DISTINCT who || ': ' || what FROM evil.called ORDER BY 1")?;
        ensure!(
            called.is_empty(),
            "the owner's operators were called as {called:?}"
        );
        orders.write(&twin, &mut session, 1)?;
        twin.assert_same(&mut session)
    });
}
