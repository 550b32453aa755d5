import type { Stack } from './stack.ts';

/** Every address of the stack, one a line. */
export function describeStack(stack: Stack): string {
  const rows: [string, string | undefined][] = [
    ['API', stack.apiUrl],
    ['API reference', `${stack.apiUrl}/docs`],
    [
      'Temporal Web UI',
      stack.temporalUiUrl && `${stack.temporalUiUrl}/namespaces/${stack.temporalNamespace}/workflows`,
    ],
    ['Temporal', stack.temporalAddress],
    ['PostgreSQL', stack.databaseUrl],
    ...stack.metricsUrls.map((url, i): [string, string] => [`Metrics, ${i === 0 ? 'API' : 'worker'}`, url]),
    ['Simulator control', stack.simulator?.controlUrl],
    ['Providers', stack.simulator ? 'simulated: no credentials are configured' : 'real, by the configured credentials'],
    ['Logs', stack.logDirectory],
  ];
  const shown = rows.filter((row): row is [string, string] => row[1] !== undefined);
  return shown.map(([name, value]) => `  ${name.padEnd(18)} ${value}`).join('\n');
}
