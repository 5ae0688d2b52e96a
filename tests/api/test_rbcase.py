import json, glob, copy
from tests.api.labs import *
from labctl.controller.desired import apply_spec
from labctl.model.spec import ScaleSetSpec
from labctl.controller.clock import now
from tests.api.documents import KEY
YAML={"name":"yard","capacity":2,"image":{"definition":"tiny"},"region":"local","zones":["1","2"],"faultDomainCount":2,"updateDomainCount":3,
 "size":{"vcpus":1,"memory":"200MiB"},"osDisk":{"size":"1500MiB"},
 "dataDisks":[{"name":"data","size":"700MiB","fileSystem":"ext4","mountPoint":"/data"},{"name":"b","size":"1GiB"}],
 "sshKeys":[KEY],"customData":{"inline":"#!/bin/sh\ntrue\n"},
 "extensions":[{"name":"a","script":"#!/bin/sh\ntrue\n","settings":{"x":1},"protectedSettings":{"p":"s"},"timeout":"3m"},{"name":"z","url":"https://h.example/x","sha256":"0"*64,"provisionAfterExtensions":["a"],"protectedSettings":{"q":"t"}}],
 "health":{"applicationHealth":{"protocol":"http","port":80,"requestPath":"/h","typeHandlerVersion":"2.0","gracePeriod":"10500ms"}},
 "timeouts":{"boot":"4m"},
 "upgradePolicy":{"mode":"Rolling","healthTimeout":"2m","maintenanceWindows":[{"start":"22:00","duration":"3h","days":["Sat"]}],"canary":{"instances":1},"hooks":{"drain":{"script":"true"}},"automaticOSUpgradePolicy":{"enableAutomaticOSUpgrade":True}},
 "scaleInPolicy":{"rules":["OldestVM"]},"automaticRepairsPolicy":{"enabled":True,"gracePeriod":"30s"},
 "notifications":[{"name":"ops","url":"https://x.example/y","events":["all"]}]}
def strip(v):
    if isinstance(v,dict): return {k:strip(e) for k,e in v.items() if e is not None}
    return [strip(e) for e in v] if isinstance(v,list) else v
def test_yaml(api):
    spec=ScaleSetSpec.model_validate(YAML)
    with api.desk.database.write() as c: apply_spec(c,spec,now=now())
    P=f"{GROUP}/yard"
    g=api.ask("GET",P).json()
    before=load(api,"yard")
    b=copy.deepcopy(g)
    for k in ("id","name","type","etag"): b.pop(k)
    for k in ("labctl","provisioningState","uniqueId","timeCreated"): b["properties"].pop(k,None)
    del b["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"]
    for e in b["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"]: e["properties"]["protectedSettings"]=None
    b=strip(b)
    r=api.ask("PUT",P,body=b); assert r.status_code==200, r.text
    assert load(api,"yard")==before
    assert r.json()["etag"]==g["etag"], (g, r.json())
    b["properties"]["upgradePolicy"]["rollingUpgradePolicy"]["maxBatchInstancePercent"]="10"
    b["properties"]["upgradePolicy"]["automaticOSUpgradePolicy"]["enableAutomaticOSUpgrade"]="True"
    r=api.ask("PUT",P,body=b); assert r.status_code==200, r.text
    after=load(api,"yard").spec
    assert after.upgrade_policy.rolling_upgrade_policy.max_batch_instance_percent==10
    d=[k for k in ScaleSetSpec.model_fields if getattr(after,k)!=getattr(spec,k)]
    assert d==["upgrade_policy"]; assert load(api,"yard").model_revision==1
    # data disks
    D=lambda disks: {"properties":{"virtualMachineProfile":{"storageProfile":{"dataDisks":disks}}}}
    for disks in ([],None,[{"lun":0}],[{"lun":0,"name":"other","diskSizeGB":1},{"lun":1}],[{"lun":1,"diskSizeGB":2},{"lun":0}],[{"lun":0,"name":"b"},{"lun":1,"name":"data"}],[{"lun":7,"name":"data","diskSizeGB":1},{"lun":1}],[{"name":"data"},{"name":"b"}], [{"lun":1},{"lun":0}],[{"lun":"0"},{"lun":"1"}], [{"lun":0,"diskSizeGB":None},{"lun":1}], [{"lun":0,"name":None},{"lun":1}],[{"lun":0,"createOption":"empty"},{"lun":1,"name":"B"}]):
        r=api.ask("PATCH",P,body=D(disks))
        v=load(api,"yard")
        print(disks, r.status_code, v.model_revision, [(x.name,x.size,x.mount_point) for x in v.spec.data_disks]==[(x.name,x.size,x.mount_point) for x in spec.data_disks], r.text[:200] if r.status_code!=200 else "")
    for ext in ({"name":"A","properties":{"publisher":"labctl","type":"Script","settings":{"script":"#!/bin/sh\ntrue\n","settings":{"x":1}}}},):
        g=api.ask("GET",P).json()
        es=g["properties"]["virtualMachineProfile"]["extensionProfile"]["extensions"]
        print(json.dumps(es)[:900])
    r=api.ask("PATCH",f"{P}/extensions/a",body={"Properties":{"Settings":es[1]["properties"]["settings"]}}); print(r.status_code,r.text[:300])
    r=api.ask("PATCH",f"{P}/extensions/a",body={"properties":{"Settings":es[1]["properties"]["settings"]}}); print(r.status_code,r.text[:300])
    r=api.ask("PATCH",f"{P}/extensions/a",body={"properties":{"forceUpdateTag":None}}); print(r.status_code,r.text[:300])
