// npm test: every runner, all of them even if one fails, some at a time. What failed is told again at the end, and the
// last line is the total, alone. With FSB_REQUIRED=all a skip is a failure. A runner that breaks without counting (a
// crash, a compile error) counts as one failure, and so does each test file that the time limit left undone.
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const startMs = performance.now();
/** Short of the 90 minutes after which nobody would hear what failed. */
const LIMIT_MS = 85 * 60_000;
/** What is told to end, and does not, is killed. */
const GRACE_MS = 20_000;
const folder = mkdtempSync(join(tmpdir(), 'fsb-test-'));
const total = { passed: 0, failed: 0, skipped: 0 };
/** How long each file of vitest took. */
const files = [];
const failures = [];
/** When each command ran, and how it ended. */
const ran = [];
const running = new Set();
let late = false;
const SLOWEST = 25;
/** Lines of a failure that are told again. */
const TOLD = 12;
/** Of a line of the summary. */
const WIDTH = 160;
/** Of more than a minute and a half each. They go first: begun last, one runner would wait for the other one. */
const LONG_OF_VM = [
  'faults/matrix',
  'backup',
  'agent',
  'in-guest',
  'in-guest-faults',
  'libvirt-backup',
  'libvirt-host',
  'oracle',
  'states',
  'units',
].map((name) => `test/vm/${name}.test.ts`);
/** The others, so many that both runners have something to do until the end. */
const PARTS_OF_VM = 6;
/** nice(1) is for the processes of one session where Linux weighs sessions as groups: sched(7), autogroup. */
const GIVE_WAY = '[ ! -e /proc/self/autogroup ] || echo 19 >/proc/self/autogroup; exec nice -n 19 "$@"';

const elapsed = () => `${((performance.now() - startMs) / 1000).toFixed(0)} s`;

const add = ({ passed = 0, failed = 0, skipped = 0 }) => {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
};

function fail(what) {
  failures.push(what);
  add({ failed: 1 });
}

/** A command that is one check: it passes or fails. */
const check =
  (command, how = {}) =>
  async () => {
    if ((await run(command, how)).status === 0) add({ passed: 1 });
    else fail(command.join(' '));
  };

/** What counts itself; each of its runners ends with `N passed, N failed`. */
const counting = (command) => async () => {
  // A file, not a pipe: that ends with the last process that was left behind with it.
  const path = join(folder, 'output');
  const stdout = openSync(path, 'w');
  const { status } = await run(command, { stdout });
  closeSync(stdout);
  const said = readFileSync(path, 'utf8');
  process.stdout.write(said);
  const counts = [...said.matchAll(/^(\d+) passed, (\d+) failed$/gm)];
  for (const [, passed, failed] of counts) add({ passed: Number(passed), failed: Number(failed) });
  const counted = counts.some(([, , failed]) => failed !== '0');
  if (counted) failures.push(command.join(' '));
  else if (counts.length === 0 || status !== 0) fail(command.join(' '));
};

/** A project of vitest, or some files of it. */
const vitest =
  (project, part = 1, words = []) =>
  async () => {
    const tally = join(folder, `${project}-${part}`);
    const chosen = ['--project', project, '--reporter=default', '--reporter=./test/tally.mjs', ...words];
    const command = ['npx', 'vitest', 'run', '--config', 'test/vitest.config.ts', ...chosen];
    const { status } = await run(command, { env: { ...process.env, FSB_TALLY: tally } });
    const failedBefore = total.failed;
    try {
      count(readFileSync(tally, 'utf8').trim().split('\n').map(JSON.parse));
    } catch (error) {
      fail(`${project} ${part}: vitest left no tally: ${error}`);
    }
    if (status !== 0 && total.failed === failedBefore) fail(`${project} ${part}: ended with ${status}`);
  };

/** Counts what tally.mjs wrote. */
function count(lines) {
  const [{ planned }] = lines;
  const began = new Set(lines.map((line) => line.began));
  const ended = new Set(lines.map((line) => line.ended));
  for (const file of planned)
    if (!ended.has(file)) fail(`${file}: ${began.has(file) ? 'was under way' : 'had not begun'} when its runner ended`);
  for (const { ended: file, ms, counts, failures: failed, around } of lines.filter((line) => line.ended)) {
    files.push({ file, seconds: ms / 1000 });
    add({ passed: counts.passed, skipped: counts.skipped });
    for (const what of [...failed, ...around]) fail(`${file}: ${what}`);
  }
  for (const what of lines.flatMap((line) => line.unhandled ?? [])) fail(what);
}

/** In a process group of its own, so that it can be ended with all that it started. */
async function run(command, { stdout = 'inherit', env = process.env, givesWay = false } = {}) {
  if (late) return { status: 'the time limit before it began' };
  const begin = elapsed();
  console.log(`\n--- ${begin}: ${command.join(' ')}`);
  const [program, ...words] = givesWay ? ['sh', '-c', GIVE_WAY, 'sh', ...command] : command;
  const child = spawn(program, words, { cwd: root, detached: true, env, stdio: ['ignore', stdout, 'inherit'] });
  running.add(child);
  const status = await new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(String(error));
      resolve('an error');
    });
    child.on('exit', (code, signal) => resolve(code ?? signal));
  });
  running.delete(child);
  console.log(`\n--- ${elapsed()}: ended with ${status}: ${command.join(' ')}`);
  ran.push(`${begin} to ${elapsed()}, ended with ${status}: ${command.join(' ')}`.slice(0, WIDTH));
  return { status };
}

function endAll(signal) {
  for (const { pid } of running) {
    try {
      process.kill(-pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }
}

function stop(why) {
  if (late) return;
  late = true;
  fail(why);
  endAll('SIGTERM');
  setTimeout(() => endAll('SIGKILL'), GRACE_MS).unref();
}

const timer = setTimeout(() => stop(`not done within ${LIMIT_MS / 60_000} minutes`), LIMIT_MS);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop(`ended by ${signal}`));

const make = (...what) => ['make', '-s', '-j2', '-Otarget', '-C', 'qga/freezer', `OUT=${join(root, 'build')}`, ...what];
const shortOfVm = readdirSync(join(root, 'test/vm'), { recursive: true })
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => `test/vm/${name}`)
  .filter((file) => !LONG_OF_VM.includes(file));
/** Not vitest's shards: it tells a reporter that each of them runs all files. */
const partsOfVm = [
  ...LONG_OF_VM.map((file) => [file]),
  ...Array.from({ length: PARTS_OF_VM }, (_, part) => shortOfVm.filter((_file, index) => index % PARTS_OF_VM === part)),
];
/** They share the machine's loop devices, and their servers are seen by each other's writers. */
const oneByOne = [vitest('conformance'), vitest('integration')];
const besideIt = partsOfVm.map((files, part) => vitest('vm', part + 1, files));
/** What the others leave of the processors is enough: lint has no time limits, and most of the rest waits. */
const givingWay = [
  check(['npm', 'run', '--silent', 'lint'], { givesWay: true }),
  vitest('unit', 1, ['--maxWorkers=1']),
  // It builds the fuzzer, as the last one does.
  check(make('fuzz', 'COUNT=20000', 'SEED=1')),
  counting(make('test')),
  counting(['npx', 'tsx', 'test/fuzz/main.ts', '--count', '20000', '--seed', '1']),
];

async function work(...queues) {
  for (const queue of queues) for (let next = queue.shift(); next !== undefined; next = queue.shift()) await next();
}

try {
  // Two user-mode guests take two processors whole: a third one would have them miss their time limits.
  await Promise.all([work(oneByOne, besideIt), work(besideIt), work(givingWay)]);
} finally {
  clearTimeout(timer);
  rmSync(folder, { recursive: true });
}
for (const what of failures) console.log(`\nFAILED ${what.split('\n').slice(0, TOLD).join('\n')}`);
// Whoever keeps the end of a log alone has what is needed in it.
console.log(`\nSlowest test files, in seconds:`);
for (const { file, seconds } of files.toSorted((a, b) => b.seconds - a.seconds).slice(0, SLOWEST))
  console.log(`${seconds.toFixed(1).padStart(7)}  ${file}`);
console.log(`\n${ran.join('\n')}\n${elapsed()} in all`);
for (const what of failures) console.log(`FAILED ${what.split('\n', 1)[0].slice(0, WIDTH)}`);
const skipsForbidden = process.env.FSB_REQUIRED === 'all';
process.exitCode = total.failed > 0 || (skipsForbidden && total.skipped > 0) ? 1 : 0;
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
