import { describe, expect, test } from 'vitest';
import { Inbox } from '../../../src/transport/inbox.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';

const collect = async (source: AsyncIterable<Uint8Array>): Promise<string> => {
  let text = '';
  for await (const chunk of source) text += Buffer.from(chunk).toString();
  return text;
};

describe('Inbox', () => {
  test('gives out what came before the end, and then the error', async () => {
    const inbox = new Inbox();
    inbox.push(Buffer.from('a'));
    inbox.push(Buffer.from('b'));
    inbox.end(new Error('unplugged'));
    inbox.push(Buffer.from('late'));
    const seen: string[] = [];
    await expect(
      (async () => {
        for await (const chunk of inbox) seen.push(Buffer.from(chunk).toString());
      })(),
    ).rejects.toThrow('unplugged');
    expect(seen).toEqual(['a', 'b']);
  });

  test('pauses its source while a reader is slow, and resumes it', async () => {
    const calls: string[] = [];
    const inbox = new Inbox({ pause: () => calls.push('pause'), resume: () => calls.push('resume') });
    for (let i = 0; i < 5; i++) inbox.push(Buffer.alloc(100 * 1024));
    expect(calls).toEqual(['pause']);
    inbox.end();
    await collect(inbox);
    expect(calls).toEqual(['pause', 'resume']);
  });
});

describe('memoryPair', () => {
  test('joins two ends; closing one ends the other', async () => {
    const [left, right] = memoryPair();
    await left.write(Buffer.from('hello'));
    await left.close();
    expect(await collect(right.read())).toBe('hello');
    await expect(left.write(Buffer.from('x'))).rejects.toThrow(/closed/);
  });
});
