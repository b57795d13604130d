// The writers that the manual shows (fsfreeze-hook.d/README.md), taken from it and run by a real coordinator; the module
// for applications that have Node; and hooks of others, as they are. No filesystem is frozen: the freezer is a fake one.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { FreezeReport, FreezeRequest, WriterReport } from '../../src/consistency.js';
import { QuiesceError } from '../../src/errors.js';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const manual = readFileSync(join(root, 'fsfreeze-hook.d/README.md'), 'utf8');

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

/** The programs of this language that the manual shows. */
function shown(language: string): readonly string[] {
  const blocks = [...manual.matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  return blocks.flatMap(([, name, text = '']) => (name === language && text.startsWith('#!') ? [text] : []));
}

function install(text: string, name = 'app', folder = 'first'): string {
  const path = join(harness.dir, folder, name);
  writeFileSync(path, text);
  chmodSync(path, 0o755);
  return path;
}

async function attempt(
  whileFrozen: () => void = () => undefined,
  require: FreezeRequest['require'] = 'auto',
): Promise<{ readonly report: FreezeReport; readonly writer: WriterReport | undefined }> {
  const coordinator = await harness.start();
  try {
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 20_000, require });
    whileFrozen();
    const report = await session.thaw();
    return { report, writer: report.writers[0] };
  } catch (error) {
    if (!(error instanceof QuiesceError)) throw error;
    const report = error.facts['report'] as FreezeReport;
    return { report, writer: report.writers[0] };
  } finally {
    await coordinator.close();
  }
}

describe('of the writers in shell that the manual shows', () => {
  const [described = '', smallest = '', locking = ''] = shown('sh');

  test('the description alone is that of a writer with four phases', () => {
    expect(described).toContain('# fsfreeze-writer: timeout.prepare=120');
  });

  test('the smallest resident has 20 lines at most, and is a whole writer', async () => {
    expect(smallest.trimEnd().split('\n').length).toBeLessThanOrEqual(20);
    install(smallest);
    const { report, writer } = await attempt();
    expect([report.level, writer?.verdict, writer?.kind]).toEqual(['application', 'verified', 'resident']);
  });

  test('the one that holds a lock keeps others from it, and lets go', async () => {
    const lock = join(harness.dir, 'lock');
    install(locking.replace('/srv/app/lock', lock));
    expect((await attempt()).writer?.verdict).toBe('not-applicable');
    writeFileSync(lock, '');
    const isFree = (): boolean => {
      try {
        execFileSync('flock', ['--nonblock', lock, 'true']);
        return true;
      } catch {
        return false;
      }
    };
    let free = true;
    const { report } = await attempt(() => {
      free = isFree();
    });
    expect([report.level, free, isFree()]).toEqual(['application', false, true]);
  });
});

requires('python3', '/usr/bin/python3')('of the writers in Python that the manual shows', () => {
  const [text = ''] = shown('python');
  const python = '/usr/bin/python3';
  const sql = (path: string, statement: string): string =>
    execFileSync(
      python,
      [
        '-c',
        'import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=0); print(c.execute(sys.argv[2]).fetchall()); c.commit()',
        path,
        statement,
      ],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
    );

  test('the one for SQLite stops writes, lets reads through, and lets go', async () => {
    const path = join(harness.dir, 'app.db');
    install(text.replace('/srv/app/app.db', path));
    expect((await attempt()).writer?.verdict).toBe('not-applicable');
    sql(path, 'create table t (x)');
    let written: unknown;
    let read: unknown;
    const { report, writer } = await attempt(() => {
      read = sql(path, 'select * from t');
      try {
        written = sql(path, 'insert into t values (1)');
      } catch (error) {
        written = String(error);
      }
    });
    expect([report.level, writer?.verdict, read]).toEqual(['application', 'verified', '[]\n']);
    expect(written).toContain('database is locked');
    sql(path, 'insert into t values (2)');
    expect(sql(path, 'select x from t')).toBe('[(2,)]\n');
  });

  test('the one for SQLite says why it cannot hold, and is let go all the same', async () => {
    const path = join(harness.dir, 'app.db');
    sql(path, 'create table t (x)');
    install(text.replace('/srv/app/app.db', path).replace('timeout=5', 'timeout=0.1'));
    const holder = `import sqlite3,sys,time; c=sqlite3.connect(sys.argv[1],isolation_level=None); c.execute('BEGIN IMMEDIATE'); open(sys.argv[1]+'.held','w'); time.sleep(60)`;
    const child = spawn(python, ['-c', holder, path], { stdio: 'ignore' });
    try {
      await expect.poll(() => existsSync(`${path}.held`), { timeout: 20_000 }).toBe(true);
      const { report, writer } = await attempt();
      expect([report.outcome, writer?.verdict]).toEqual(['failed', 'failed']);
      expect(writer?.reason).toContain('database is locked');
      expect(writer?.phases.at(-1)).toMatchObject({ phase: 'thaw' });
      expect(report.unreleased ?? []).toEqual([]);
    } finally {
      child.kill('SIGKILL');
    }
  });
});

describe('of the writers in Node that the manual shows', () => {
  const description = '{"resident": true, "phases": ["prepare", "freeze", "verify", "thaw"], "guarantee": "held"}';

  /** The program of the manual, with an application beside it that writes into the journal what it is told. */
  async function installed(application: string, edit = (program: string) => program): Promise<void> {
    const source = join(harness.dir, 'source');
    mkdirSync(source);
    const [text = ''] = shown('js');
    writeFileSync(join(source, 'program.js'), edit(text));
    writeFileSync(
      join(source, 'application.js'),
      `import { appendFileSync } from 'node:fs';
       const log = (text) => appendFileSync(${JSON.stringify(harness.journalPath)}, text + '\\n');
       ${application}`,
    );
    const outfile = join(harness.dir, 'first/app');
    await build({
      entryPoints: [join(source, 'program.js')],
      alias: { 'fsfreeze-bridge/writer': join(root, 'src/writer/serve-writer.ts') },
      bundle: true,
      platform: 'node',
      format: 'esm',
      outfile: join(harness.dir, 'app.mjs'),
      logLevel: 'error',
    });
    writeFileSync(outfile, `#!/bin/sh\nexec ${process.execPath} ${join(harness.dir, 'app.mjs')} "$@"\n`);
    chmodSync(outfile, 0o755);
    expect(manual).toContain(`\`${description}\``);
    writeFileSync(`${outfile}.json`, description);
  }

  const application = (isPaused = 'true'): string => `
    export const openApplication = async () => ({
      flush: async () => log('flush'),
      pause: async () => log('pause'),
      isPaused: async () => ${isPaused},
      resume: async (outcome) => log('resume ' + outcome),
    });`;

  test('it is asked in its turn, and proves its hold', async () => {
    await installed(application());
    const { report, writer } = await attempt();
    expect([report.level, writer?.verdict, writer?.kind]).toEqual(['application', 'verified', 'resident']);
    expect(harness.journal.filter((line) => !line.startsWith('F'))).toEqual(['flush', 'pause', 'resume ok']);
  });

  test('what it throws is the reason, on one line', async () => {
    await installed(application("Promise.reject(new Error('two\\nlines'))"));
    const { writer } = await attempt();
    expect(writer).toMatchObject({ verdict: 'failed', reason: 'verify: two lines' });
    expect(harness.journal).toEqual(['flush', 'pause', 'resume failed']);
  });

  test('with post it is told after the session, and let go', async () => {
    const post = "post: (outcome) => application.resume('and told ' + outcome),\n});";
    await installed(application(), (program) => program.replace('});', post));
    writeFileSync(join(harness.dir, 'first/app.json'), description.replace('"thaw"', '"thaw", "post"'));
    const { report } = await attempt();
    expect(report.level).toBe('application');
    await expect
      .poll(() => harness.journal.filter((line) => !line.startsWith('F')))
      .toEqual(['flush', 'pause', 'resume ok', 'resume and told ok']);
    await expect.poll(() => harness.coordinator.lastReport?.writers[0]?.phases.at(-1)).toMatchObject({ phase: 'post' });
    expect(harness.coordinator.lastReport?.writers[0]?.reason).toBeUndefined();
  });

  test('a reason longer than a line may be is cut short, and no fault of its own', async () => {
    await installed(application("Promise.reject(new Error('no '.repeat(40_000)))"));
    const { writer } = await attempt();
    expect(writer?.reason).toMatch(/^verify: (no )+/);
    expect(harness.journal).toEqual(['flush', 'pause', 'resume failed']);
  });

  test('without an application it is not applicable', async () => {
    await installed('export const openApplication = async () => undefined;');
    expect((await attempt()).writer).toMatchObject({
      verdict: 'not-applicable',
      reason: 'the application does not run here',
    });
  });
});

describe('hooks of others', () => {
  /**
   * Of the shape of QEMU's mysql-flush.sh.sample: a client in the background holds what a fifo keeps it from giving up,
   * and other looks than at the lock tell when to go on.
   */
  const flush = (fifo: string, client: string): string => `#!/bin/sh
hold() {
	echo LOCK
	read -r _ <"${fifo}"
	echo UNLOCK
	rm -f "${fifo}"
}
if [ "$1" = freeze ]; then
	mkfifo "${fifo}" || exit 1
	hold | "${client}" &
	until grep -q '^LOCK' "${harness.journalPath}"; do sleep 0.05; done
elif [ "$1" = thaw ] && [ -p "${fifo}" ]; then
	echo >"${fifo}"
else
	exit 1
fi
`;

  test("one as QEMU's sample for MySQL holds from freeze to thaw, and only claims to", async () => {
    const fifo = join(harness.dir, 'flush.fifo');
    const client = join(harness.dir, 'client');
    writeFileSync(client, `#!/bin/sh\nexec cat >>'${harness.journalPath}'\n`);
    chmodSync(client, 0o755);
    install(flush(fifo, client), 'mysql-flush.sh', 'qemu');
    const { report, writer } = await attempt(() => undefined, 'plain');
    expect([report.outcome, report.level, writer?.verdict]).toEqual(['ok', 'filesystem', 'claimed']);
    await expect.poll(() => harness.journal.at(-1)).toBe('UNLOCK');
    expect(harness.journal.at(0)).toBe('LOCK');
    expect(harness.journal.filter((line) => line.includes('LOCK'))).toEqual(['LOCK', 'UNLOCK']);
    await expect.poll(() => existsSync(fifo)).toBe(false);
    // One that is left over refuses the next freeze, and is named.
    writeFileSync(fifo, '');
    const again = await attempt(() => undefined, 'plain');
    expect(again.report).toMatchObject({ outcome: 'failed', error: expect.stringContaining('File exists') as string });
  });

  test('one as those of dragonsdawn is given its mount points, and fails where its data lies on none of them', async () => {
    const about = (data: string): string => `#!/bin/sh
verb=$1
shift
for point in "$@"; do
	[ "$point" = "${data}" ] || continue
	echo "$verb $*" >>'${harness.journalPath}'
	exit 0
done
exit 1
`;
    install(about('/data'), 'postgresql', 'dragonsdawn');
    expect((await attempt(() => undefined, 'plain')).report.outcome).toBe('ok');
    expect(harness.journal.filter((line) => !line.startsWith('F'))).toEqual(['freeze / /data', 'thaw / /data']);
    install(about('/nowhere'), 'postgresql', 'dragonsdawn');
    expect((await attempt(() => undefined, 'plain')).report).toMatchObject({ outcome: 'failed' });
  });
});
