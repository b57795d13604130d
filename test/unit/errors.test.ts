// How an error is put into one line, for people and for the wire.
import { describe, expect, test } from 'vitest';
import { BridgeError, describeError, QuiesceError } from '../../src/errors.js';
import { RemoteError, toWireError } from '../../src/rpc/errors.js';

const full = new Error('ENOSPC: no space left on device, write');

describe('an error in one line', () => {
  test('gives the message and its causes, outermost first', () => {
    const inner = new BridgeError('E_WRITE', 'the note cannot be written', { cause: full });
    expect(describeError(new QuiesceError('E_QUIESCE', 'no session', { cause: inner }))).toBe(
      'no session: the note cannot be written: ENOSPC: no space left on device, write',
    );
  });

  test('tells a cause once that is quoted in the message', () => {
    const quoting = new BridgeError('E_WRITE', `/run/x: ${full.message}`, { cause: full });
    expect(describeError(quoting)).toBe('/run/x: ENOSPC: no space left on device, write');
    // A refusal that was taken over word by word.
    const refusal = new RemoteError('GenericError', 'the guest is held by backup');
    const taken = new QuiesceError('E_QUIESCE', refusal.desc, { cause: refusal });
    expect(toWireError(taken)).toEqual({ class: 'GenericError', desc: 'the guest is held by backup' });
  });
});
