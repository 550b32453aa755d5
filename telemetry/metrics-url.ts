/** An IPv6 address stands in brackets in a URL. */
export function metricsUrl(address: string, port: number): string {
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}/metrics`;
}
