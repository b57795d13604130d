// npm test: every runner, all of them even if one fails; guests beside the rest. The last line is the total, alone.
// With FSB_REQUIRED=all a skip is a failure. A runner that breaks without counting (a crash, a compile error) counts
// as one failure.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const startMs = performance.now();
const work = mkdtempSync(join(tmpdir(), 'fsb-test-'));
const total = { passed: 0, failed: 0, skipped: 0 };
/** How long each file of vitest took. */
const files = [];
const SLOWEST = 15;
/** Guests whose turn comes after the rest, so that both rows end at about the same time. */
const WITH_THE_REST = 'test/vm/in-guest.test';

const add = ({ passed = 0, failed = 0, skipped = 0 }) => {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
};

/** Runs a command that is one check: it passes or fails. */
function check(...command) {
  add(run(command).status === 0 ? { passed: 1 } : { failed: 1 });
}

/** Runs what counts itself; each of its runners ends with `N passed, N failed`. */
function counting(...command) {
  const { status, stdout } = run(command, 'pipe');
  process.stdout.write(stdout);
  const counts = [...stdout.matchAll(/^(\d+) passed, (\d+) failed$/gm)];
  for (const [, passed, failed] of counts) add({ passed: Number(passed), failed: Number(failed) });
  const counted = counts.some(([, , failed]) => failed !== '0');
  if (counts.length === 0 || (status !== 0 && !counted)) add({ failed: 1 });
}

/** Runs projects of vitest, all of them or what `words` choose; counts when they are through. */
async function vitest(projects, ...words) {
  const file = join(work, `${[...projects, words.length].join('-')}.json`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
  const chosen = projects.flatMap((name) => ['--project', name]);
  const command = ['npx', 'vitest', 'run', '--config', 'test/vitest.config.ts', ...chosen, ...reporters, ...words];
  console.log(`\n--- ${command.join(' ')}`);
  const status = await new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (error) => {
      console.error(String(error));
      resolve(null);
    });
    child.on('close', resolve);
  });
  let counted = { failed: 0 };
  try {
    const result = JSON.parse(readFileSync(file, 'utf8'));
    for (const { name, startTime, endTime } of result.testResults)
      files.push({ name, seconds: (endTime - startTime) / 1000 });
    const pending = result.numPendingTests + result.numTodoTests;
    counted = { passed: result.numPassedTests, failed: result.numFailedTests, skipped: pending };
    add(counted);
  } catch (error) {
    console.error(`vitest left no result: ${error}`);
  }
  if (status !== 0 && counted.failed === 0) add({ failed: 1 });
}

function run(command, stdout = 'inherit') {
  console.log(`\n--- ${command.join(' ')}`);
  const result = spawnSync(command[0], command.slice(1), {
    cwd: root,
    stdio: ['ignore', stdout, 'inherit'],
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error) console.error(String(result.error));
  return result;
}

try {
  // Beside each other: a guest waits much of the time, and so do processes that are killed on purpose.
  const guests = vitest(['vm'], '--exclude', `${WITH_THE_REST}*`);
  check('make', '-s', '-C', 'qga/freezer', `OUT=${join(root, 'build')}`, 'fuzz', 'COUNT=20000', 'SEED=1');
  counting('make', '-s', '-C', 'qga/freezer', `OUT=${join(root, 'build')}`, 'test');
  counting('npx', 'tsx', 'test/fuzz/main.ts', '--count', '20000', '--seed', '1');
  check('npm', 'run', '--silent', 'lint');
  await vitest(['unit', 'conformance', 'integration']);
  await vitest(['vm'], WITH_THE_REST);
  await guests;
} finally {
  rmSync(work, { recursive: true });
}
console.log(`\nSlowest test files, in seconds:`);
for (const { name, seconds } of files.toSorted((a, b) => b.seconds - a.seconds).slice(0, SLOWEST))
  console.log(`${seconds.toFixed(1).padStart(7)}  ${relative(root, name)}`);
console.log(`${((performance.now() - startMs) / 1000).toFixed(0).padStart(7)}  all of it`);
const skipsForbidden = process.env.FSB_REQUIRED === 'all';
process.exitCode = total.failed > 0 || (skipsForbidden && total.skipped > 0) ? 1 : 0;
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
