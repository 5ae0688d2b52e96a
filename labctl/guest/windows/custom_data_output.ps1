# What custom data printed, for the message of its failure.
$log = Join-Path $env:ProgramData 'labctl\custom-data.log'
if (Test-Path -LiteralPath $log) { Get-Content -LiteralPath $log -Tail 40 }
