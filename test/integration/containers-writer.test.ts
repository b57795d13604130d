// fsfreeze-hook.d/20-containers with a docker and a podman that are scripts: they keep containers as files, and answer as
// the real ones were seen to. Asked by hand, and by a coordinator whose freezer is a fake one. No filesystem is frozen.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');
const hook = join(hooks, '20-containers');
const LABELS = ['writer', 'freeze', 'thaw', 'verify'] as const;
type Labels = Partial<Record<(typeof LABELS)[number], string>>;
interface Container {
  readonly labels: Labels;
  readonly status: string;
  readonly started: string;
}
const BOTH = ['docker', 'podman'] as const;
type Runtime = (typeof BOTH)[number];

/** A container is a folder ID with files `status`, `started`, `labels` and `quoted`; commands inside run here. */
const RUNTIME = `#!/bin/sh
cd '@' || exit 125
echo "$*" >>calls
# As podman 4.3 and as docker print it.
state() {
	case @RUNTIME,$(cat "$1/status") in
	podman,running) echo Up 3 seconds ago ;;
	*) cat "$1/status" ;;
	esac
}
verb=$1
shift
case $verb in
ps)
	for id in */; do [ ! -e "$id/status" ] || echo "\${id%/} $(state "$id") $(cat "$id/labels")"; done
	;;
inspect)
	shift 2
	format=$2
	shift 2
	for id; do
		[ -e "$id/status" ] || { echo "Error: no such container $id" >&2; code=125; continue; }
		case $format in
		*writer*) echo "$id \\"$(cat "$id/started")\\" $(cat "$id/status") @PID"; cat "$id/quoted" ;;
		'{{.Id}}'*) echo "$id \\"$(cat "$id/started")\\" $(cat "$id/status")" ;;
		*) echo "\\"$(cat "$id/started")\\" $(cat "$id/status")" ;;
		esac
	done
	exit \${code:-0}
	;;
pause | unpause)
	from=running to=paused
	[ $verb = pause ] || { from=paused to=running; }
	for id; do
		[ "$(cat "$id/status")" = $from ] || { echo "Error: container $id is not $from" >&2; code=125; continue; }
		echo $to >"$id/status"
	done
	exit \${code:-0}
	;;
exec)
	id=$1
	shift
	cd "$id" && exec "$@"
	;;
esac
`;

requires('root', 'findmnt')('20-containers', () => {
  let dir: string;
  let server: ChildProcess;
  let processes: ChildProcess[];

  const place = (id: string, runtime: Runtime): string => join(dir, runtime, id);
  const id = (letter: string): string => letter.repeat(64);
  const container = (letter: string, labels: Labels, more: Partial<Container & { runtime: Runtime }> = {}): string => {
    const { runtime = 'docker', status = 'running', started = '2026-01-01T00:00:00Z' } = more;
    const at = place(id(letter), runtime);
    mkdirSync(at, { recursive: true });
    writeFileSync(join(at, 'status'), `${status}\n`);
    writeFileSync(join(at, 'started'), started);
    const said = Object.entries(labels).map(([name, value]) => `fsfreeze-bridge.${name}=${value}`);
    writeFileSync(join(at, 'labels'), said.join(','));
    // As Go quotes.
    writeFileSync(
      join(at, 'quoted'),
      LABELS.map((name) => `${name} ${labels[name] === undefined ? '' : JSON.stringify(labels[name])}\n`).join(''),
    );
    return at;
  };
  const status = (at: string): string => readFileSync(join(at, 'status'), 'utf8').trim();
  const calls = (runtime: Runtime): string[] =>
    existsSync(join(dir, runtime, 'calls'))
      ? readFileSync(join(dir, runtime, 'calls'), 'utf8')
          .trim()
          .split('\n')
      : [];
  const environment = (mountpoints: string, path = `${join(dir, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin`) => ({
    PATH: path,
    FSFREEZE_SCRATCH: join(dir, 'scratch'),
    FSFREEZE_MOUNTPOINTS: mountpoints,
    FSFREEZE_CONTAINERS_CONF: join(dir, 'containers.conf'),
  });
  /** Exit code, then the reason. */
  const run = (phase: string, { shell = 'sh', mountpoints = '/' } = {}): string => {
    const [program = '', ...words] = shell.split(' ');
    const done = spawnSync(program, [...words, hook, phase], { env: environment(mountpoints), encoding: 'utf8' });
    return `${done.status}${done.stderr === '' ? '' : ` ${done.stderr.trim()}`}`;
  };
  const held = (): void => {
    expect([run('prepare'), run('freeze'), run('verify')]).toEqual(['0', '0', '0']);
  };
  /** The server of docker, the monitor of podman: by name. */
  async function named(name: string): Promise<ChildProcess> {
    copyFileSync('/bin/sleep', join(dir, name));
    const child = spawn(join(dir, name), ['600'], { stdio: 'ignore' });
    await once(child, 'spawn');
    processes.push(child);
    return child;
  }

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'fsb-containers-'));
    processes = [];
    for (const name of ['bin', 'scratch', ...BOTH]) mkdirSync(join(dir, name));
    server = await named('dockerd');
    for (const runtime of BOTH) {
      const text = RUNTIME.replace("'@'", `'${join(dir, runtime)}'`)
        .replace('@RUNTIME', runtime)
        .replace('@PID', String(server.pid));
      writeFileSync(join(dir, 'bin', runtime), text, { mode: 0o755 });
    }
  });
  afterEach(async () => {
    for (const child of processes) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await ended;
    }
    rmSync(dir, { recursive: true });
  });

  test.each(['dash', 'busybox sh', 'bash'])('paused, proved, unpaused twice (%s)', async (shell) => {
    await named('conmon');
    const both = BOTH.map((runtime) => container('a', { writer: 'pause' }, { runtime }));
    const other = container('b', {});
    expect(run('prepare', { shell })).toBe('0');
    expect(run('freeze', { shell })).toBe('0');
    expect([...both, other].map(status)).toEqual(['paused', 'paused', 'running']);
    expect(run('verify', { shell })).toBe('0');
    expect(run('thaw', { shell })).toBe('0');
    expect(both.map(status)).toEqual(['running', 'running']);
    expect(run('thaw', { shell })).toBe('0');
    expect(run('verify', { shell })).toContain('has ended, was started anew or is not paused any more');
  });

  test('no label, no runtime, or none that is asked: not applicable', () => {
    container('a', {});
    expect(run('prepare')).toBe('3');
    expect(calls('podman')).toEqual([]);
    container('b', { writer: 'pause' });
    writeFileSync(join(dir, 'containers.conf'), '# not this one\nIGNORE=docker\n');
    expect(run('prepare')).toBe('3');
    const env = environment('/', '/nonexistent');
    expect(spawnSync('/bin/sh', [hook, 'prepare'], { env, encoding: 'utf8' }).status).toBe(3);
    writeFileSync(join(dir, 'containers.conf'), 'IGNORE=lxc\n');
    expect(run('prepare')).toContain('expected IGNORE=docker or IGNORE=podman, found: IGNORE=lxc');
  });

  test('containers that do not write to the set are passed over', () => {
    container('a', { writer: 'pause' });
    expect(run('prepare', { mountpoints: '/nowhere' })).toBe('3');
    expect(run('prepare', { mountpoints: '/nowhere\n/' })).toBe('0');
  });

  test('a command runs inside for freeze, verify and thaw, with whatever characters', () => {
    const at = container('a', { writer: `exec:printf '%s "<&>\\\\' x >>said; echo` });
    held();
    expect(run('thaw')).toBe('0');
    expect(readFileSync(join(at, 'said'), 'utf8')).toBe('x "<&>\\'.repeat(3));
    const three = container('b', { freeze: 'echo held >now', verify: 'grep -q held now', thaw: 'rm -f now' });
    held();
    writeFileSync(join(three, 'now'), 'lost');
    expect(run('verify')).toMatch(/^1 container b{12}: verify: exit 1:$/);
    expect(run('thaw')).toBe('0');
    expect(existsSync(join(three, 'now'))).toBe(false);
  });

  test('a command without verify proves nothing', () => {
    container('a', { freeze: 'true', thaw: 'true' });
    expect([run('prepare'), run('freeze')]).toEqual(['0', '0']);
    expect(run('verify')).toBe('2 nothing proves the hold of aaaaaaaaaaaa: it has no command for verify');
  });

  test('a command that fails at freeze says why, and is run for thaw all the same', () => {
    const at = container('a', { freeze: 'echo no lock; exit 5', thaw: 'touch thawed' });
    expect(run('prepare')).toBe('0');
    expect(run('freeze')).toMatch(/^1 container a{12}: freeze: exit 5: no lock/);
    expect(run('thaw')).toBe('0');
    expect(existsSync(join(at, 'thawed'))).toBe(true);
  });

  test('unpaused by a stranger, started anew, new, gone: verify fails, and says which', () => {
    const at = container('a', { writer: 'pause' });
    held();
    writeFileSync(join(at, 'status'), 'running');
    expect(run('verify')).toMatch(/^1 container a{12} has ended, was started anew or is not paused any more/);
    writeFileSync(join(at, 'status'), 'paused');
    writeFileSync(join(at, 'started'), '2026-01-01T00:00:01Z');
    expect(run('verify')).toMatch(/^1 container a{12} has ended, was started anew/);
    rmSync(at, { recursive: true });
    expect(run('verify')).toMatch(/^1 container a{12} has ended/);
    expect(run('thaw')).toBe('0');

    container('b', { writer: 'pause' });
    held();
    container('c', {});
    container('d', { writer: 'pause' }, { status: 'exited' });
    expect(run('verify')).toBe('0');
    container('e', { writer: 'pause' });
    expect(run('verify')).toMatch(/^1 container e{12} was started since prepare/);
  });

  test('a container that somebody had paused counts as held, and stays so', () => {
    const at = container('a', { writer: 'pause' }, { status: 'paused' });
    held();
    expect(run('thaw')).toBe('0');
    expect(status(at)).toBe('paused');
  });

  test('a thaw that fails is told, and succeeds when it is tried again', () => {
    const at = container('a', { writer: 'pause' });
    held();
    const runtime = join(dir, 'bin/docker');
    const working = readFileSync(runtime, 'utf8');
    writeFileSync(runtime, '#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n');
    expect(run('thaw')).toBe('1 Cannot connect to the Docker daemon');
    writeFileSync(runtime, working);
    expect(run('thaw')).toBe('0');
    expect(status(at)).toBe('running');
  });

  test('a pause that comes when nobody waits for it any more is taken back', async () => {
    const at = container('a', { writer: 'pause' });
    const runtime = join(dir, 'bin/docker');
    const working = readFileSync(runtime, 'utf8');
    writeFileSync(
      runtime,
      working.replace('\npause | unpause)\n', '\npause | unpause)\n[ $verb = unpause ] || sleep 2\n'),
    );
    expect(run('prepare')).toBe('0');
    const freezing = spawn(hook, ['freeze'], { env: environment('/'), stdio: 'ignore' });
    await expect.poll(() => calls('docker').at(-1)).toContain('pause ');
    freezing.kill('SIGKILL');
    await once(freezing, 'exit');
    expect(run('thaw')).toBe('1 container aaaaaaaaaaaa: its pause was cut off, and may come yet');
    await expect.poll(() => status(at), { timeout: 5_000 }).toBe('paused');
    expect(run('thaw')).toBe('0');
    expect(status(at)).toBe('running');
  });

  test('a label with a newline in it stays its own container’s', () => {
    container('a', { writer: 'pause\nfreeze "touch /x"' });
    container('b', { writer: 'pause' });
    expect(run('prepare')).toMatch(/^1 container a{12}: expected the label .* found writer=pause\\nfreeze "touch/);
  });

  test('labels that say nothing clear, and a runtime that does not answer, are told', () => {
    container('a', { freeze: 'true' });
    expect(run('prepare')).toContain('or both fsfreeze-bridge.freeze and .thaw, found writer= freeze=true thaw=');
    writeFileSync(join(dir, 'bin/docker'), '#!/bin/sh\necho it hurts >&2\nexit 1\n');
    expect(run('prepare')).toMatch(/^1 docker does not answer: it hurts \(IGNORE=docker in .* passes over it\)$/);
  });

  test('through the agent: application; unpaused meanwhile: not, and why', async () => {
    const at = container('a', { writer: 'pause' });
    await using harness = new FreezeHarness();
    copyFileSync(join(hooks, '.functions'), join(harness.dir, 'shipped/.functions'));
    // The agent's PATH is a fixed one.
    const text = readFileSync(hook, 'utf8');
    const [head = '', ...rest] = text.split('\ncase ${1:-} in');
    const copy = [`${head}\nPATH=${join(dir, 'bin')}:$PATH`, ...rest].join('\ncase ${1:-} in');
    writeFileSync(join(harness.dir, 'shipped/20-containers'), copy, { mode: 0o755 });
    const coordinator = await harness.start();
    const freeze = () => coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });

    const good = await freeze();
    expect(status(at)).toBe('paused');
    const verified = [{ verdict: 'verified', guarantee: 'held' }];
    expect(await good.thaw()).toMatchObject({ level: 'application', outcome: 'ok', writers: verified });
    expect(status(at)).toBe('running');

    const bad = await freeze();
    writeFileSync(join(at, 'status'), 'running');
    const lost = await bad.thaw();
    expect(lost.level).toBe('filesystem');
    expect(lost.writers[0]?.reason).toMatch(/verify: .*container a{12} has ended/);
  });
});
