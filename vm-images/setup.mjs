// What has to be there before `npm run demo`, `npm test` and the benches can run: npm packages, Debian packages, the
// build. Plain Node without any package, since it is the very first thing that runs in a fresh clone.
// Usage: node vm-images/setup.mjs [--no-build]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OLDEST_NODE = [20, 19];

/** Debian packages, with what each is for. The fixture looks for some of them, too (src/testing/programs.ts). */
const DEBIAN_PACKAGES = JSON.parse(readFileSync(path.join(ROOT, 'vm-images/packages.json'), 'utf8'));

/** If one of these is gone, node_modules is damaged whatever the recorded hash says. */
const KEY_PACKAGES = ['typescript', 'vitest', 'execa', 'valibot'];

checkNode();
installNodeModules('.', KEY_PACKAGES);
installNodeModules('qga/package', []);
installDebianPackages();
if (!process.argv.includes('--no-build')) run('npm', ['run', '--silent', 'build'], 'the build failed');

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return;
  fail(`expected Node ${OLDEST_NODE.join('.')} or newer, found ${process.versions.node}`);
}

/** `npm ci` when node_modules was not made from the lock file that is there now. */
function installNodeModules(folder, keyPackages) {
  const directory = path.join(ROOT, folder);
  const lock = path.join(directory, 'package-lock.json');
  if (!existsSync(lock)) return;
  const hash = createHash('sha256').update(readFileSync(lock)).digest('hex');
  const record = path.join(directory, 'node_modules/.fsb-lock-hash');
  const whole = keyPackages.every((name) => existsSync(path.join(directory, 'node_modules', name, 'package.json')));
  if (whole && existsSync(record) && readFileSync(record, 'utf8') === hash) return;
  say(`npm ci in ${folder === '.' ? 'the project' : folder}`);
  // --include=dev: under NODE_ENV=production npm would leave out what builds and tests.
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--prefix', directory], 'npm ci failed');
  mkdirSync(path.dirname(record), { recursive: true });
  writeFileSync(record, hash);
}

function installDebianPackages() {
  const isRoot = process.getuid() === 0;
  const wanted = new Map(
    DEBIAN_PACKAGES.filter(({ withoutRoot }) => !(isRoot && withoutRoot)).map((one) => [one.package, one.what]),
  );
  const missing = missingOf([...wanted.keys()]);
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (!isRoot) {
    const width = Math.max(...missing.map((name) => name.length));
    const table = missing.map((name) => `  ${name.padEnd(width)}  ${wanted.get(name)}`).join('\n');
    fail(`these Debian packages are missing:\n${table}\nInstall them as root:\n  ${command}`);
  }
  say(`installing Debian packages: ${missing.join(' ')}`);
  const before = runningAgents();
  if (missing.includes('qemu-guest-agent')) keepAgentFromStarting();
  // RUNLEVEL=1: invoke-rc.d starts no service then (where systemd runs, the mask above keeps the agent from it).
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const patient = ['-o', 'DPkg::Lock::Timeout=120', '-o', 'Acquire::Retries=3'];
  run('apt-get', [...patient, '-q', 'update'], 'apt-get update failed', env);
  run('apt-get', [...patient, ...command.split(' ').slice(1)], 'apt-get install failed', env);
  const started = runningAgents().filter((pid) => !before.includes(pid));
  if (started.length > 0) {
    fail(`installing qemu-guest-agent has started it on this machine (pid ${started.join(', ')}): stop it first`);
  }
  const stillMissing = missingOf(missing);
  if (stillMissing.length > 0) fail(`still missing after the installation: ${stillMissing.join(' ')}`);
}

function missingOf(packages) {
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...packages], {
    encoding: 'utf8',
  });
  if (query.error) fail(`this needs Debian or a relative of it: dpkg-query: ${query.error.message}`);
  const installed = query.stdout.split('\n').filter((line) => line.endsWith(' installed'));
  return packages.filter((name) => !installed.includes(`${name} installed`));
}

/** A guest agent on this machine could freeze it; it is wanted as a program here, not as a service. */
function keepAgentFromStarting() {
  if (!existsSync('/run/systemd/system')) return;
  const mask = '/run/systemd/system/qemu-guest-agent.service'; // under /run: until the next boot only
  if (!lstatSync(mask, { throwIfNoEntry: false })) symlinkSync('/dev/null', mask);
  spawnSync('systemctl', ['daemon-reload']);
}

function runningAgents() {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'qemu-ga';
    } catch {
      return false; // it has just ended
    }
  });
}

function run(command, args, complaint, env = process.env) {
  // stdout of ours is for results (`--json`): what the tools print goes to stderr.
  const { status, signal, error } = spawnSync(command, args, { cwd: ROOT, stdio: ['ignore', 2, 2], env });
  if (status !== 0) fail(`${complaint}: ${command} ${args.join(' ')}: ${error?.message ?? signal ?? `exit ${status}`}`);
}

function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function fail(line) {
  say(line);
  process.exit(1);
}
