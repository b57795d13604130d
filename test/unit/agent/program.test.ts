import { expect, test } from 'vitest';
import { runProgram } from '../../../src/agent/program.js';

const limitMs = 5000;

test('gives exit code and output, of both streams together too', async () => {
  const found = await runProgram('/bin/sh', ['-c', 'echo o; echo e >&2; exit 3'], { limitMs });
  expect(found).toEqual({ exitCode: 3, stdout: 'o\n', output: 'o\ne\n' });
  expect((await runProgram('sh', ['-c', 'kill -9 $$'], { limitMs })).exitCode).toBeUndefined();
});

test('gives input byte for byte, the C locale, and no input if there is none', async () => {
  const input = Buffer.from('a\xffb', 'latin1');
  expect((await runProgram('od', ['-An', '-c'], { limitMs, input })).stdout.trim()).toBe('a 377   b');
  expect((await runProgram('sh', ['-c', 'echo $LC_ALL; cat'], { limitMs })).stdout).toBe('C\n');
});

test('does not take words for a shell’s', async () => {
  expect((await runProgram('echo', ['$HOME; `id`', '*'], { limitMs })).stdout).toBe('$HOME; `id` *\n');
});

test('names what cannot be run', async () => {
  await expect(runProgram('no-such-tool', [], { limitMs })).rejects.toMatchObject({
    code: 'E_NO_PROGRAM',
    message: `cannot run 'no-such-tool': No such file or directory`,
    facts: { errno: 'ENOENT' },
  });
  await expect(runProgram('/tmp', [], { limitMs })).rejects.toMatchObject({
    code: 'E_PROGRAM',
    message: `cannot run '/tmp': Permission denied`,
  });
});

test('ends what does not end in time, with all it has started', async () => {
  const mark = `424${process.pid}`;
  const running = async () => (await runProgram('pgrep', ['-f', `^sleep ${mark}`], { limitMs })).stdout;
  const slow = runProgram('sh', ['-c', `sleep ${mark} & sleep ${mark}`], { limitMs: 300 });
  await expect(slow).rejects.toThrow('sh: no answer within 300 ms');
  await expect.poll(running).toBe('');
});
