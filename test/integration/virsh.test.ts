// virsh as the host tool keeps it: a real one, on the driver of its own that needs no libvirtd and changes nothing. Twice:
// as installed, and reading as one does that was built without readline. Other versions: `npm run test:libvirt`.
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { DeadlineError, UnreachableError, UsageError } from '../../src/errors.js';
import { Virsh, VirshError } from '../../src/host/vm/libvirt/virsh.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const LIMIT_MS = 20_000;
const uri = 'test:///default';
let virsh: Virsh;
afterEach(async () => {
  await virsh[Symbol.asyncDispose]();
  await expect.poll(shells, { timeout: 5000 }).toEqual([]);
  vi.unstubAllEnvs();
});

/** Of ours alone: processes whose parent this one is. */
function shells(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      return stat.includes('(virsh)') && stat.slice(stat.lastIndexOf(')')).split(' ')[2] === String(process.pid);
    } catch {
      return false; // it has just ended
    }
  });
}

/** vshReadline of libvirt's tools/vsh.c, built without readline: the prompt is flushed since 9.1 or later only. */
const reading = (flush: string): string => `#include <stdio.h>
#include <string.h>
char *readline(const char *prompt)
{
    char line[1024];
    fputs(prompt, stdout);
    ${flush}
    if (fgets(line, sizeof line, stdin) == NULL)
        return NULL;
    line[strcspn(line, "\\n")] = 0;
    return strdup(line);
}
`;

const variants = [
  { how: 'as installed', source: undefined },
  { how: 'without readline', source: reading('fflush(stdout);') },
  { how: 'without readline, an older one', source: reading('') },
];

requires('virsh', 'gcc')('virsh, kept connected', () => {
  describe.each(variants)('$how', ({ source }) => {
    let folder: Scratch;
    beforeAll(async () => {
      folder = scratch();
      if (source === undefined) return;
      writeFileSync(folder.path('reading.c'), source);
      await execa('gcc', [
        '-shared',
        '-fPIC',
        '-D_GNU_SOURCE',
        '-o',
        folder.path('reading.so'),
        folder.path('reading.c'),
      ]);
    });
    afterAll(() => {
      folder[Symbol.dispose]();
    });
    beforeEach(() => {
      if (source !== undefined) vi.stubEnv('LD_PRELOAD', folder.path('reading.so'));
      virsh = new Virsh({ domain: 'test', uri });
    });

    test('gives what a command prints, one after the other, by one process that ends with its input', async () => {
      const answers = await Promise.all([
        virsh.run('dumpxml', [], LIMIT_MS),
        virsh.run('domstate', [], LIMIT_MS),
        virsh.run('dumpxml', ['--inactive'], LIMIT_MS),
      ]);
      expect(answers[0]).toMatch(/^<domain type='test' id='\d+'>\n {2}<name>test<\/name>[^]*<\/domain>\n/);
      expect(answers[1].trim()).toBe('running');
      expect(answers[2]).toMatch(/^<domain type='test'>/);
      expect(shells()).toHaveLength(1);
      await virsh[Symbol.asyncDispose]();
      await expect.poll(shells, { timeout: 5000 }).toEqual([]);
    });

    test('passes words on as they are, whatever is in them', async () => {
      // A longer one is given to a virsh of its own without readline, and this driver is another one for each.
      const title = `it's "a" \\ $HOME \`id\`; echo ${'x'.repeat(source === undefined ? 3000 : 300)} ü`;
      await virsh.run('desc', ['--title', '--live', title], LIMIT_MS);
      expect((await virsh.run('desc', ['--title', '--live'], LIMIT_MS)).trim()).toBe(title);
      await expect(virsh.run('desc', ['--title', 'a\nb'], LIMIT_MS)).rejects.toBeInstanceOf(UsageError);
      // At the length that is read as one line, around it, and far from it.
      const lengths = [...Array.from({ length: 9 }, (_, index) => 920 + 15 * index), 4000];
      for (const length of lengths) {
        const unknown = new Virsh({ domain: 'n'.repeat(length), uri });
        const refused = await unknown.run('domstate', [], LIMIT_MS).catch((error: unknown) => error);
        expect(refused).toMatchObject({
          code: 'E_MONITOR',
          message: `libvirt has no domain "${'n'.repeat(length)}" at ${uri}`,
        });
        await unknown[Symbol.asyncDispose]();
      }
    });

    test('tells what libvirt says no to, and goes on', async () => {
      const refused = await virsh.run('blockjob', ['vda', '--info'], LIMIT_MS).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(VirshError);
      expect(refused).toMatchObject({ outcome: 'none', code: 'E_LIBVIRT' });
      expect((refused as VirshError).message).toMatch(/^libvirt domain test, virsh blockjob: .+not supported/);
      expect((await virsh.run('domstate', [], LIMIT_MS)).trim()).toBe('running');
    });

    test('knows a domain that is shut off, one that is not there, and a libvirt that does not answer', async () => {
      await using unknown = new Virsh({ domain: 'nobody', uri });
      const notThere = unknown.run('domstate', [], LIMIT_MS);
      await expect(notThere).rejects.toMatchObject({
        code: 'E_MONITOR',
        message: `libvirt has no domain "nobody" at ${uri}`,
      });
      await virsh.run('destroy', [], LIMIT_MS);
      await expect(virsh.run('reset', [], LIMIT_MS)).rejects.toThrow(/not running|is shut off|not supported/);
      await using silent = new Virsh({ domain: 'test', uri: 'qemu+unix:///system?socket=/nonexistent' });
      const failure = await silent.run('domstate', [], LIMIT_MS).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(UnreachableError);
      expect(failure).toMatchObject({ code: 'E_LIBVIRT' });
    });

    test('a limit that passes leaves the outcome unknown, and the next command is answered by another', async () => {
      await virsh.run('domstate', [], LIMIT_MS);
      const [stopped] = shells();
      process.kill(Number(stopped), 'SIGSTOP');
      const late = await virsh.run('domstate', [], 200).catch((error: unknown) => error);
      expect(late).toBeInstanceOf(DeadlineError);
      expect(late).toMatchObject({ outcome: 'unknown' });
      expect((await virsh.run('domstate', [], LIMIT_MS)).trim()).toBe('running');
      await expect.poll(shells, { timeout: 5000 }).toHaveLength(1);
      expect(shells()).not.toContain(stopped);
    });

    test('one that is killed in the middle leaves the outcome unknown, too', async () => {
      await virsh.run('domstate', [], LIMIT_MS);
      const [pid] = shells();
      process.kill(Number(pid), 'SIGSTOP');
      const lost = virsh.run('domstate', [], LIMIT_MS).catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, 100));
      process.kill(Number(pid), 'SIGKILL');
      expect(await lost).toMatchObject({ code: 'E_LIBVIRT', outcome: 'unknown' });
      expect((await virsh.run('domstate', [], LIMIT_MS)).trim()).toBe('running');
    });

    test("leaves its user's history alone", async () => {
      using folder: Scratch = scratch();
      const history = folder.path('libvirt/virsh/history');
      mkdirSync(folder.path('libvirt/virsh'), { recursive: true });
      writeFileSync(history, 'list --all\n');
      vi.stubEnv('XDG_CACHE_HOME', folder.dir);
      await virsh.run('domstate', [], LIMIT_MS);
      await virsh[Symbol.asyncDispose]();
      await expect.poll(shells, { timeout: 5000 }).toEqual([]);
      expect(readFileSync(history, 'utf8')).toBe('list --all\n');
    });

    test('says which package is missing', async () => {
      using folder: Scratch = scratch();
      symlinkSync('/bin/sh', folder.path('sh'));
      vi.stubEnv('PATH', folder.dir);
      const missing = virsh.run('domstate', [], LIMIT_MS);
      await expect(missing).rejects.toMatchObject({
        code: 'E_VIRSH',
        message: expect.stringContaining('Debian: libvirt-clients') as string,
      });
    });
  });
});
