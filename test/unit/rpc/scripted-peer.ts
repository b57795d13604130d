// A peer that answers by script: told of each request that arrives, it writes whatever bytes it likes.
import type { ByteStream } from '../../../src/transport/byte-stream.js';
import { memoryPair } from '../../../src/transport/memory-pair.js';
import { encodeLine } from '../../../src/wire/encode.js';
import { MessageParser } from '../../../src/wire/message-parser.js';
import { isJsonObject, type JsonObject, type JsonValue } from '../../../src/wire/value.js';

export interface ScriptedPeer {
  /** The end for the client under test. */
  readonly stream: ByteStream;
  /** Names of the commands received, in order; `?` for what is no JSON. */
  readonly received: readonly string[];
  /** Writes raw bytes (latin1 text). */
  say(text: string): Promise<void>;
  reply(message: object, delimited?: boolean): Promise<void>;
  close(): Promise<void>;
}

export type Script = (request: JsonObject, peer: ScriptedPeer) => Promise<void> | void;

/** Syncs are answered as an agent does unless `script` is given them by `ownSync`. */
export function scriptedPeer(script: Script, { ownSync = false } = {}): ScriptedPeer {
  const [stream, far] = memoryPair();
  const received: string[] = [];
  const peer: ScriptedPeer = {
    stream,
    received,
    say: (text) => far.write(Buffer.from(text, 'latin1')),
    reply: (message, delimited) => far.write(encodeLine(message, delimited)),
    close: () => far.close(),
  };
  const parser = new MessageParser();
  void (async () => {
    for await (const chunk of far.read()) {
      for (const message of parser.feed(chunk)) {
        if (message.kind !== 'value' || !isJsonObject(message.value)) {
          received.push('?');
          continue;
        }
        const request = message.value;
        received.push(typeof request['execute'] === 'string' ? request['execute'] : '?');
        if (request['execute'] === 'guest-sync-delimited' && !ownSync) {
          await peer.reply({ return: argument(request, 'id') }, true);
        } else {
          await script(request, peer);
        }
      }
    }
  })();
  return peer;
}

export function argument(request: JsonObject, name: string): JsonValue | undefined {
  const args = request['arguments'];
  return isJsonObject(args) ? args[name] : undefined;
}
