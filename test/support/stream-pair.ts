// Two ends of a connection in memory as Node's streams, for what takes a socket.
import { Duplex } from 'node:stream';

export function streamPair(): readonly [Duplex, Duplex] {
  const ends: Duplex[] = [];
  const end = (other: () => Duplex | undefined): Duplex =>
    new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        const peer = other();
        if (peer?.destroyed === false) peer.push(chunk);
        done();
      },
      final(done) {
        other()?.push(null);
        done();
      },
      destroy(error, done) {
        setImmediate(() => other()?.destroy());
        done(error);
      },
    });
  ends.push(
    end(() => ends[1]),
    end(() => ends[0]),
  );
  const [near, far] = ends as [Duplex, Duplex];
  far.on('error', () => undefined);
  return [near, far];
}
