/**
 * `giveUp` is aborted `graceMs` after `stop`: the time that answers under way have when the worker shuts down, well before it is
 * forced to end.
 */
export function startGrace(stop: AbortSignal, graceMs: number): { giveUp: AbortSignal; release: () => void } {
  const giveUp = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onStop = () => {
    timer = setTimeout(() => giveUp.abort(), graceMs);
  };
  if (stop.aborted) onStop();
  else stop.addEventListener('abort', onStop, { once: true });
  return {
    giveUp: giveUp.signal,
    release: () => {
      clearTimeout(timer);
      stop.removeEventListener('abort', onStop);
    },
  };
}
