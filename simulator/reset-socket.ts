import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** Ends a TLS connection by a TCP RST. If the TLS socket has ended already, a reset below it would leave a handle spinning. */
export function resetSocket(socket: TLSSocket, rawSocket: Socket): void {
  if (socket.writable && !rawSocket.destroyed) rawSocket.resetAndDestroy();
  else rawSocket.destroy();
}
